"""Prepare images and masks as the originals do, for test_images_parity.py.

    PYTHONPATH=.:test:DEPENDENCIES python test/record_images.py CLONES

CLONES holds detectron2 (facebookresearch/detectron2), S-AModal (ifnspaml/S-AModal) and eoras
(amazon-science/efficient-object-centric-representation-amodal-segmentation); DEPENDENCIES is what
`pip install --no-deps --target` made of fvcore iopath yacs omegaconf antlr4-python3-runtime==4.9.3
portalocker termcolor cloudpickle mmcv-lite mmengine addict yapf platformdirs rich mmdet==2.28.2
scikit-image lazy_loader tifffile imageio networkx scipy matplotlib pycocotools.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import zlib
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import image_cases as cases
import numpy as np
import torch
from record_weights import CLONES, Mocks

Arrays = dict[str, Any]


def resized(key: str, image: np.ndarray) -> Arrays:
    """What is kept of a resized image: its size, a checksum, and some pixels."""
    image = np.ascontiguousarray(image)
    return {
        f"{key}/size": image.shape[:2],
        f"{key}/checksum": zlib.crc32(image.tobytes()),
        f"{key}/pixels": cases.sampled(image),
    }


def module_of(path: Path, name: str) -> Any:
    """A module by itself, without its package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def detectron2() -> Arrays:
    """ResizeShortestEdge, and masks of a network's input in the image."""
    sys.path.insert(0, str(CLONES / "detectron2"))
    compiled = types.ModuleType("detectron2._C")
    compiled.__getattr__ = lambda name: MagicMock()  # type: ignore[method-assign]
    sys.modules["detectron2._C"] = compiled
    from detectron2.data.transforms import ResizeShortestEdge
    from detectron2.modeling.postprocessing import detector_postprocess
    from detectron2.structures import Boxes, Instances

    result: Arrays = {}
    for n, (height, width, short, longest) in enumerate(cases.RESIZED["pil"]):
        image = cases.picture(height, width)
        change = ResizeShortestEdge([short, short], longest or sys.maxsize)
        result |= resized(f"pil/{n}", change.get_transform(image).apply_image(image))
    logits, boxes = cases.masks()
    found = Instances(cases.SHRUNK, pred_boxes=Boxes(boxes), pred_masks=logits.sigmoid()[:, None])
    found = detector_postprocess(found, *cases.PASTED)
    assert len(found) == len(boxes)
    packed = np.packbits(found.pred_masks.numpy())
    return result | {"detectron2/masks": packed, "detectron2/boxes": found.pred_boxes.tensor}


def mmdetection() -> Arrays:
    """Resize with keep_ratio, and masks of a network's input in the image."""
    import mmcv

    result: Arrays = {}
    for n, (height, width, short, longest) in enumerate(cases.RESIZED["opencv"]):
        image = mmcv.imrescale(cases.picture(height, width), (longest, short))
        result |= resized(f"opencv/{n}", image)

    # Version 2 of mmdetection belongs to version 1 of mmcv: its mask head is taken by itself.
    def as_it_is(*_: Any, **__: Any) -> Any:
        return lambda thing: thing

    runner = types.ModuleType("mmcv.runner")
    runner.BaseModule, runner.ModuleList = torch.nn.Module, torch.nn.ModuleList  # type: ignore[attr-defined]
    runner.auto_fp16 = runner.force_fp32 = as_it_is  # type: ignore[attr-defined]
    builder = types.ModuleType("mmdet.models.builder")
    builder.HEADS = types.SimpleNamespace(register_module=as_it_is)  # type: ignore[attr-defined]
    builder.build_loss = None  # type: ignore[attr-defined]
    sys.modules |= {"mmcv.runner": runner, "mmdet.models.builder": builder}
    sys.meta_path.insert(0, Mocks("mmcv.cnn", "mmcv.ops", "mmdet"))
    where = next(Path(p) / "mmdet" for p in sys.path if (Path(p) / "mmdet").is_dir())
    head = module_of(where / "models/roi_heads/mask_heads/fcn_mask_head.py", "fcn_mask_head")
    logits, boxes = cases.masks()
    shrink = [cases.SHRUNK[1] / cases.PASTED[1], cases.SHRUNK[0] / cases.PASTED[0]]
    labels = torch.arange(len(boxes))
    masks = head.FCNMaskHead.get_seg_masks(
        types.SimpleNamespace(num_classes=len(boxes), class_agnostic=True),
        logits[:, None],
        boxes,
        labels,
        types.SimpleNamespace(mask_thr_binary=0.5),
        cases.PASTED,
        np.array(shrink * 2, np.float32),
        True,
    )
    return result | {"mmdetection/masks": np.packbits(np.stack([m for (m,) in masks]))}


def sam() -> Arrays:
    """ResizeLongestSide, points, and masks of the square input in the image."""
    sys.path.insert(0, str(CLONES / "S-AModal"))
    sys.meta_path.insert(0, Mocks("einops"))
    from segment_anything.modeling.sam import Sam
    from segment_anything.utils.transforms import ResizeLongestSide

    result: Arrays = {}
    for n, (height, width, _, longest) in enumerate(cases.RESIZED["sam"]):
        image = cases.picture(height, width)
        result |= resized(f"sam/{n}", ResizeLongestSide(longest).apply_image(image))
    result["sam/points"] = ResizeLongestSide(1024).apply_coords(cases.POINTS, (375, 1242))
    encoder = types.SimpleNamespace(image_encoder=types.SimpleNamespace(img_size=256))
    drawn = Sam.postprocess_masks(encoder, cases.low_masks(), (77, 256), (150, 499))
    return result | {"sam/masks": np.stack([cases.sampled(m) for m in drawn[:, 0].numpy()])}


def eoras() -> Arrays:
    """Crops of images, and masks of crops in the image."""
    sys.path.insert(0, str(CLONES / "eoras"))
    sys.meta_path.insert(0, Mocks("torch.utils.tensorboard"))
    from dataset.dataset_movi import Movi
    from model.utils import generate

    reader = types.SimpleNamespace(patch_h=128, patch_w=128)
    crops = [np.float32(cases.picture(*size) / np.float32(255)) for size in cases.CROPS]
    result = {
        f"eoras/{n}": cases.sampled(crop).astype(np.float32)
        for n, crop in enumerate(Movi.rescale_patch(reader, crops))
    }
    for n, (grid, window) in enumerate(cases.grids()):
        given = torch.from_numpy(grid)[None, None, None]
        nothing, place = torch.zeros(1, 1, 1, 90, 140), torch.tensor([[window]])
        drawn = generate(given, nothing, place)[0, 0, 0].numpy()
        result[f"eoras/mask{n}"] = np.packbits(drawn.astype(bool))
    return result


if __name__ == "__main__":
    arrays = detectron2() | sam() | eoras() | mmdetection()
    cases.FIXTURE.parent.mkdir(exist_ok=True)
    np.savez_compressed(cases.FIXTURE, **arrays)
