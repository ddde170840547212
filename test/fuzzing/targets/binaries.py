"""Pickles, arrays, pictures, weights."""

from __future__ import annotations

import io
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mobile_sam_files import Graph
from PIL import Image

from amodal_core import pickles
from amodal_core.datasets import image_files as pictures
from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, read_info, save_tensors
from amodal_core.models.imports.files import read_file
from amodal_core.models.layers.mobile_sam import graph_weights
from amodal_core.models.layers.weights import read_weights
from amodal_core.settings import checked
from fuzzing import mutations as spoil

from .base import RNG, add, file_of, made

_VALUE = {
    "points": np.arange(12, dtype=np.float32).reshape(4, 3), "labels": np.array([1, 2, 3]),
    "text": ["a", b"b", (1, 2), {3}, None, True, 1 + 2j],
    "objects": np.array([{"a": 1}, "b"], object),
}  # fmt: skip
add("pickle", [pickle.dumps(_VALUE, protocol=p) for p in range(6)], spoil.of_pickle,
     file_of("a.pkl", pickles.load))  # fmt: skip


def _npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


_ARRAYS = [_npy(v) for v in (np.ones((2, 3)), np.array(["a", "bc"]), np.array(["a"], object))]
add("npy", _ARRAYS, spoil.of_npy, file_of("a.npy", pickles.load_npy))

PIXELS = RNG.integers(0, 255, (12, 16, 3), np.uint8)
PICTURES = [cv2.imencode(s, PIXELS)[1].tobytes() for s in (".png", ".jpg", ".bmp", ".webp")]
PICTURES.append(cv2.imencode(".png", PIXELS[..., 0].astype(np.uint16) * 99)[1].tobytes())
_palette = io.BytesIO()
Image.fromarray(PIXELS).quantize(8).save(_palette, "PNG")


def _picture(path: Path) -> None:
    list(pictures.check_image(path))
    with suppress(InputError):
        pictures.read_labels(path)
    pictures.read_image(path)


add("picture", [*PICTURES, _palette.getvalue()], spoil.of_picture, file_of("a.png", _picture))


def _checkpoint(path: Path) -> None:
    info = read_info(path)
    read_weights(path)
    checked(registry.settings_of(info.model), info.config, str(path))


def _config() -> dict[str, Any]:
    shipped = registry.shipped("fused")
    return read_info(shipped).config if shipped else {}


def _safetensors(root: Path) -> None:
    tensors = {"a.weight": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.float16)}
    info = CheckpointInfo("flagship", _config(), ("car",), "x", "y", {"AP": 1.0})
    save_tensors(root / "a.safetensors", tensors, info)


add("checkpoint", made(_safetensors, "a.safetensors"), spoil.of_safetensors,
     file_of("a.safetensors", _checkpoint))  # fmt: skip


def _torch(zipped: bool) -> bytes:
    file = io.BytesIO()
    state = {"state_dict": {"a.weight": torch.ones(2, 3), "b": torch.zeros(4)}, "epoch": 3}
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


add("weights", [_torch(True)], spoil.of_zip(spoil.of_pickle), file_of("a.pth", read_file))
add("weights_old", [_torch(False)], spoil.of_bytes, file_of("a.pth", read_file))
add("weights_pickle", [pickle.dumps({"blobs": {"a.weight": np.ones((2, 3))}})], spoil.of_pickle,
     file_of("a.pkl", read_file))  # fmt: skip


def _graph() -> bytes:
    graph = Graph()
    graph.add("Conv", "/patch_embed/seq/seq.0/c", _=torch.ones(2, 3, 1, 1), __=torch.ones(2))
    graph.add("MatMul", "/layers.1/blocks.0/attn/qkv", _=torch.ones(3, 2))
    graph.add("Expand", "", _=torch.ones(1, 5, 2))
    graph.constant("/layers.1/blocks.0/attn", torch.ones(2, 4, 4))
    return graph.content()


def _graphs(path: Path) -> None:
    (path.parent / "sam.onnx").write_bytes(path.read_bytes())
    graph_weights(path.parent)


add("graph_weights", [_graph()], spoil.of_bytes, file_of("encoder.onnx", _graphs))
