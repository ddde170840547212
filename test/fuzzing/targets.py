"""The parsers, each with valid inputs of our own making and how they are spoilt."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from datasets_scenes import CLASSES, SIZE, calibration, drive
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from amodal_core import pickles
from amodal_core.bags.clouds import read_scan
from amodal_core.bags.factory import RosbagsFactory, typestore
from amodal_core.bags.images import read_depth, read_image
from amodal_core.bags.messages import instances_message, read_instances, read_tracks
from amodal_core.bags.reader import BagReader
from amodal_core.bags.sensors import (
    camera_info_message,
    image_message,
    points_message,
    pose_message,
    read_pose,
    read_transform,
    transform_message,
)
from amodal_core.bags.writer import BagWriter
from amodal_core.datasets import amodal_synth_drive_write, coco, kins, kitti_write, labelme, sailvos
from amodal_core.datasets import image_files as pictures
from amodal_core.datasets.base import BEGIN, PERIOD
from amodal_core.datasets.kitti import read_scan as read_kitti_scan
from amodal_core.datasets.kitti import read_stamps
from amodal_core.datasets.kitti_labels import read_object_labels, read_tracking_labels
from amodal_core.datasets.kitti_oxts import pose, read_oxts
from amodal_core.datasets.kitti_to_bag import _velo_from_imu
from amodal_core.datasets.registry import open_dataset
from amodal_core.datasets.sailvos_cut import read_structure
from amodal_core.datasets.statistics import Statistics, count
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.settings import DriveSettings
from amodal_core.errors import InputError
from amodal_core.evaluation import results
from amodal_core.evaluation.formats import read_predictions
from amodal_core.evaluation.kitti_files import read_names, read_pairs
from amodal_core.evaluation.matching import Matches
from amodal_core.evaluation.sets import ImageRecord, empty_set
from amodal_core.evaluation.truth import Truth, read_truth
from amodal_core.frame import Tracks
from amodal_core.geometry.calibration import read_kitti, read_kitti_raw
from amodal_core.geometry.calibration_files import read_calibration
from amodal_core.geometry.camera import read_camera
from amodal_core.geometry.config import GeometricConfig
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.runs import Runs
from amodal_core.masks.validate import SegmentationError, to_rle
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, read_info, save_tensors
from amodal_core.models.imports.files import read_file
from amodal_core.models.layers.weights import read_weights
from amodal_core.settings import checked, parse_rules
from amodal_ros import launching
from training import config as training_config

from . import mutations as spoil


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        name: of it.
        seeds: valid inputs.
        mutate: spoils one.
        read: reads one, in a folder of its own that stays; raises InputError for a bad one.
    """

    name: str
    seeds: Sequence[bytes]
    mutate: spoil.Mutate
    read: Callable[[bytes, Path], Any]


TARGETS: list[Target] = []


def _add(name: str, seeds: Sequence[bytes], mutate: spoil.Mutate, read: Any) -> None:
    TARGETS.append(Target(name, seeds, mutate, read))


def _file(name: str, read: Callable[[Path], Any]) -> Callable[[bytes, Path], Any]:
    """A reader of a file of that name."""

    def on(data: bytes, folder: Path) -> Any:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(path)

    return on


RNG = np.random.default_rng(5)
SAMPLES = drive(RNG, 2)
EMPTY = RleMasks.empty(SIZE, 1).counts[0].decode()


def _made(make: Callable[[Path], Any], *names: str) -> list[bytes]:
    """The contents of files that a function makes."""
    with TemporaryDirectory() as folder:
        make(Path(folder))
        return [(Path(folder) / name).read_bytes() for name in names]


# Data sets: one of their files is spoilt, the others stay.


def explore(root: Path, format: str = "") -> None:
    """All that is done with a data set."""
    data = open_dataset(root, format)
    for finding in data.check():
        assert finding is None or (finding.rule and finding.what)
    list(count(data, Statistics()))
    refused = None
    for index in range(len(data)):
        try:
            sample = data[index]
        except InputError as error:
            refused = error
            continue
        truth = sample.truth
        if truth is not None and data.has_masks:
            assert not (truth.visible.rle() - truth.amodal.rle()).areas().any()
    with suppress(InputError), TemporaryDirectory() as out:
        list(data.fix(Path(out) / "clean"))
    if data.has_masks:
        read_truth(root)
    if refused is not None:
        raise refused


def _data_set(name: str, format: str, make: Callable[[Path], Any], file: str, mutate: Any) -> None:
    """A data set of which the file `file` is spoilt."""

    @lru_cache(maxsize=1)
    def root_in(folder: Path) -> Path:
        root = folder / "set"
        if not root.exists():
            make(root)
        return root

    def read(data: bytes, folder: Path) -> None:
        root = root_in(folder)
        (root / file).write_bytes(data)
        explore(root, format)

    with TemporaryDirectory() as folder:
        make(Path(folder) / "set")
        seed = (Path(folder) / "set" / file).read_bytes()
    _add(name, [seed], mutate, read)


def _written(write: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda root: list(write(root))


def _coco_like(visible: str = "visible_mask") -> dict[str, Any]:
    truth = SAMPLES[0].truth
    assert truth is not None
    rows = []
    for k in range(len(truth)):
        x0, y0, x1, y1 = truth.amodal_boxes[k].tolist()
        masks = [m.rle().counts[k].decode() for m in (truth.amodal, truth.visible)]
        whole, shown = ({"size": list(SIZE), "counts": c} for c in masks)
        rows.append(
            {"id": k + 1, "image_id": 5, "category_id": 3, "iscrowd": 0, "area": 9,
             "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": whole, visible: shown,
             "occlude_rate": float(truth.occlusion_rates[k])}
        )  # fmt: skip
    rows[-1]["segmentation"] = [[40, 20, 70, 20, 70, 50, 40, 50], [1, 1, 5, 1, 5, 5]]
    image = {"id": 5, "file_name": "D2S_000205.jpg", "height": SIZE[0], "width": SIZE[1]}
    return {"images": [image], "annotations": rows, "categories": [{"id": 3, "name": "car"}]}


def _one_json(name: str, content: dict[str, Any]) -> Callable[[Path], Any]:
    def make(root: Path) -> None:
        root.mkdir()
        (root / name).write_text(json.dumps(content))
        image = content["images"][0]["file_name"]
        assert SAMPLES[0].frame.image is not None
        cv2.imwrite(str(root / image), SAMPLES[0].frame.image)

    return make


def _cocoa() -> dict[str, Any]:
    regions = [
        {"segmentation": [40, 20, 70, 20, 70, 50, 40, 50], "name": "a", "area": 9, "isStuff": 0,
         "occlude_rate": 0.0, "order": 1},
        {"segmentation": [10, 20, 50, 20, 50, 50, 10, 50], "name": "b", "area": 9, "isStuff": 1,
         "occlude_rate": 0.3, "order": 2, "visible_mask": {"size": list(SIZE), "counts": EMPTY}},
    ]  # fmt: skip
    image = {"id": 5, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}
    annotation = {"id": 31, "image_id": 5, "regions": regions, "depth_constraint": "1-2", "size": 2}
    return {"images": [image], "annotations": [annotation]}


def _movi(root: Path) -> None:
    folder = root / "17"
    folder.mkdir(parents=True)
    K = [[1.1, 0, -0.5], [0, -1.8, -0.5], [0, 0, -1]]
    meta = {
        "metadata": {"num_frames": 1, "height": SIZE[0], "width": SIZE[1]},
        "camera": {"K": K, "R": np.eye(3).tolist(), "positions": [[0, 0, 0]]},
        "instances": [{"bboxes": [], "bbox_frames": [], "bboxes_3d": []}],
    }
    (folder / "metadata.json").write_text(json.dumps(meta))
    mask = np.zeros(SIZE, np.uint8)
    mask[10:30, 10:40] = 1
    assert SAMPLES[0].frame.image is not None
    cv2.imwrite(str(folder / "rgba_full_00000.png"), SAMPLES[0].frame.image)
    cv2.imwrite(str(folder / "segmentation_full_00000.png"), mask)
    cv2.imwrite(str(folder / "segmentation_0_00000.png"), mask)
    cv2.imwrite(str(folder / "depth_full_00000.tiff"), np.full(SIZE, 7, np.float32))
    np.save(root / "instance_list.npy", np.array(["17-0"]))


_VIDEO = "2011_09_26_drive_0001_sync"


def _kins_video(root: Path) -> None:
    truth, image = SAMPLES[0].truth, SAMPLES[0].frame.image
    assert truth is not None
    assert image is not None
    folder = root / "Kitti" / "raw_video" / "2011_09_26" / _VIDEO
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / f"{7:010d}.png"), image)
    x0, y0, x1, y1 = truth.visible_boxes[0].astype(int).tolist()
    rle = {"size": list(SIZE), "counts": truth.visible.rle().counts[0]}
    none = {"size": list(SIZE), "counts": EMPTY.encode()}
    data = {11: {0: {"VM": rle, "VM_bbox": [y0, y1, x0, x1], "loss_mask": none}}}
    (root / "car_data").mkdir()
    (root / "car_data" / "val_data.pkl").write_bytes(pickle.dumps({_VIDEO: data}))
    full = pickle.dumps({_VIDEO: {11: {0: {"FM": rle}}}})
    (root / "car_data" / "val_data_full_mask.pkl").write_bytes(full)
    (root / "Kitti" / "calib").mkdir()
    (root / "Kitti" / "calib" / "26.txt").write_text(kitti_write.calibration_lines(calibration()))


def _first_json(make: Callable[[Path], Any]) -> str:
    """The annotations in what a writer makes: calibration files are apart."""
    with TemporaryDirectory() as folder:
        make(Path(folder) / "set")
        files = [p for p in Path(folder).rglob("*.json") if p.name != "calibration.json"]
        return str(min(files, key=str).relative_to(Path(folder) / "set"))


_WRITERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "kins": ("kins", _written(lambda out: kins.write(out, SAMPLES, CLASSES))),
    "kins2019": ("kins", _written(lambda out: kins.write(out, SAMPLES, CLASSES, version=2019))),
    "sailvos": ("", _written(lambda out: sailvos.write(out, SAMPLES, CLASSES, kind="joint"))),
    "coco": ("", _written(lambda out: coco.write(out, SAMPLES, CLASSES))),
    "labelme": ("labelme", _written(lambda out: labelme.write(out, SAMPLES, CLASSES))),
    "synth_drive": ("", _written(lambda o: amodal_synth_drive_write.write(o, SAMPLES, CLASSES))),
}
for _name, (_format, _make) in _WRITERS.items():
    _data_set(_name, _format, _make, _first_json(_make), spoil.of_json)
_data_set("d2sa", "d2sa", _one_json("D2S_a.json", _coco_like()), "D2S_a.json", spoil.of_json)
_cls = "COCO_amodal_train2014_with_classes.json"
_data_set("cocoa_cls", "cocoa_cls", _one_json(_cls, _coco_like()), _cls, spoil.of_json)
_data_set("cocoa", "cocoa", _one_json("a.json", _cocoa()), "a.json", spoil.of_json)
_data_set("movi_metadata", "movi", _movi, "17/metadata.json", spoil.of_json)
_data_set("movi_list", "movi", _movi, "instance_list.npy", spoil.of_npy)
_data_set("movi_labels", "movi", _movi, "17/segmentation_full_00000.png", spoil.of_picture)
_data_set("movi_depth", "movi", _movi, "17/depth_full_00000.tiff", spoil.of_bytes)
_data_set("kins_video", "kins_video", _kins_video, "car_data/val_data.pkl", spoil.of_pickle)


def _kitti(root: Path) -> None:
    list(kitti_write.write(root, SAMPLES, CLASSES))


def _find(make: Callable[[Path], Any], pattern: str) -> str:
    with TemporaryDirectory() as folder:
        make(Path(folder) / "set")
        file = min((Path(folder) / "set").glob(pattern))
        return str(file.relative_to(Path(folder) / "set"))


for _name, _part, _how in (
    ("kitti_labels", "**/label_2/*.txt", spoil.of_text),
    ("kitti_calib", "**/calib/*.txt", spoil.of_text),
    ("kitti_velodyne", "**/velodyne/*.bin", spoil.of_floats),
    ("kitti_image", "**/image_2/*.png", spoil.of_picture),
):
    _data_set(_name, "kitti_object", _kitti, _find(_kitti, _part), _how)


def _frames(root: Path) -> None:
    from amodal_core.datasets.frames import unpack

    with TemporaryDirectory() as folder:
        list(coco.write(Path(folder) / "set", SAMPLES[:1], CLASSES))
        unpack(open_dataset(Path(folder) / "set"), root)


_data_set("frames_index", "frames", _frames, "frames.json", spoil.of_json)
_data_set("frames_file", "frames", _frames, "000000.npz", spoil.of_zip(spoil.of_npy))


# Files of numbers and texts.

_TRACKING = b"0 7 Car 0 0 -1.5 10 20 50 60 1.5 1.6 4.0 1.0 1.5 20 0.1\n" * 2
_OBJECT = b"Car 0 0 -1.5 10 20 50 60 1.5 1.6 4.0 1.0 1.5 20 0.1 0.9\n" * 3
_STAMPS = b"2011-09-26 13:02:25.000123456\n2011-09-26 13:02:25.100123456\n"
_OXTS = b" ".join(b"%d.5" % (k % 40) for k in range(30))
_K = "70 0 50 0 0 70 30 0 0 0 1 0"
_CAM = f"S_rect_02: 100 60\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: {_K}\n".encode()
_VELO = b"R: 0 -1 0 0 0 -1 1 0 0\nT: 0.1 0.2 0.3\n"


def _kitti_raw(cam: bytes, folder: Path) -> None:
    (folder / "calib_velo_to_cam.txt").write_bytes(_VELO)
    _file("calib_cam_to_cam.txt", lambda p: read_kitti_raw(p.parent))(cam, folder)


def _oxts(path: Path) -> None:
    packet = read_oxts(path)
    pose(packet, packet)


def _pairs(data: bytes, folder: Path) -> None:
    for part in ("label_2", "kitti"):
        (folder / part).mkdir(exist_ok=True)
    (folder / "label_2" / "000001.txt").write_bytes(_OBJECT)
    (folder / "kitti" / "000001.txt").write_bytes(data)
    read_pairs(folder / "label_2", folder / "kitti")


_add("tracking_labels", [_TRACKING], spoil.of_text, _file("0000.txt", read_tracking_labels))
_add("object_labels", [_OBJECT], spoil.of_text, _file("0.txt", read_object_labels))
_add("kitti_results", [_OBJECT], spoil.of_text, _pairs)
_add("names", [b"000001\n000002\n"], spoil.of_text, _file("val.txt", read_names))
_add("stamps", [_STAMPS], spoil.of_text,
     _file("timestamps.txt", lambda p: read_stamps(p.parent, {0: p, 1: p})))  # fmt: skip
_add("oxts", [_OXTS], spoil.of_text, _file("0.txt", _oxts))
_add("imu_to_velo", [_VELO], spoil.of_text, _file("i.txt", _velo_from_imu))
_add("scan_file", [RNG.normal(0, 9, 40).astype("<f4").tobytes()], spoil.of_floats,
     _file("0.bin", read_kitti_scan))  # fmt: skip
_add("structure", [b'{"a__1": ["a.png", "b.png"], "b": []}'], spoil.of_json,
     _file("s.json", read_structure))  # fmt: skip

# Calibration.

_CAMERA_YAML = yaml.safe_dump(
    {
        "image_width": 100,
        "image_height": 60,
        "camera_matrix": {"rows": 3, "cols": 3, "data": [70.0, 0, 50, 0, 70, 30, 0, 0, 1]},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.1, 0, 0, 0, 0]},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": [1.0, 0, 0, 0, 1, 0, 0, 0, 1]},
        "projection_matrix": {"data": [70.0, 0, 50, 0, 0, 70, 30, 0, 0, 0, 1, 0]},
    }
).encode()
_KALIBR = yaml.safe_dump(
    {
        "cam0": {
            "camera_model": "pinhole",
            "intrinsics": [70.0, 70.0, 50.0, 30.0],
            "distortion_model": "equidistant",
            "distortion_coeffs": [0.1, 0.0, 0.0, 0.0],
            "resolution": [100, 60],
            "rostopic": "/cam0/image_raw",
            "T_cam_lidar": np.eye(4).tolist(),
        }
    }
).encode()


def _use_calibration(path: Path) -> None:
    """Read it and use it as a drive does."""
    read = read_calibration(path)
    camera = read.camera.of_size(100, 60)
    place = np.eye(4) if read.camera_from_lidar is None else read.camera_from_lidar
    camera.calibration(place)
    if camera.distorted and camera.width * camera.height < 1e6:
        camera.rectify(np.zeros((camera.height, camera.width, 3), np.uint8))


_add("calibration_yaml", [_CAMERA_YAML, _KALIBR], spoil.of_yaml, _file("c.yaml", _use_calibration))
_add("calibration_txt", [kitti_write.calibration_lines(calibration()).encode()], spoil.of_text,
     _file("c.txt", _use_calibration))  # fmt: skip
_add("calibration_kitti", [kitti_write.calibration_lines(calibration()).encode()], spoil.of_text,
     _file("k.txt", read_kitti))  # fmt: skip
_add("calibration_raw", [_CAM], spoil.of_text, _kitti_raw)


# Masks and results.


def _segmentation(data: bytes, _: Path) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    size = SIZE
    if isinstance(value, dict) and isinstance(value.get("size"), list):
        with suppress(ValueError, TypeError, OverflowError):
            size = tuple(map(int, value["size"]))[:2]  # type: ignore[assignment]
    with suppress(SegmentationError):
        if len(size) == 2:
            to_rle(value, size)


def _rle(data: bytes, _: Path) -> None:
    with suppress(ValueError):
        RleMasks(SIZE, [data]).check()
    with suppress(ValueError):
        Runs.parse([data], np.array([SIZE[0]]), np.array([SIZE[1]]))


_truth = SAMPLES[0].truth
assert _truth is not None
_COUNTS = [c for m in (_truth.amodal, _truth.visible) for c in m.rle().counts]
_SEGMENTATIONS: list[Any] = [
    [[40, 20, 70, 20, 70, 50, 40, 50], [1, 1, 5, 1, 5, 5]],
    {"size": list(SIZE), "counts": _COUNTS[0].decode()},
    {"size": list(SIZE), "counts": [100, 50, SIZE[0] * SIZE[1] - 150]},
]
_add("segmentation", [json.dumps(s).encode() for s in _SEGMENTATIONS], spoil.of_json, _segmentation)
_add("rle", _COUNTS, spoil.of_bytes, _rle)

_IMAGES = [ImageRecord(k + 1, *SIZE, f"{k}", "v", k) for k in range(2)]
_TRUTH = Truth(empty_set(_IMAGES, CLASSES), {k + 1: k for k in range(3)}, {1: "v"})
_ROW = {
    "image_id": 1, "category_id": 1, "score": 0.5, "bbox": [1, 2, 30, 40], "id": 3,
    "segmentation": _SEGMENTATIONS[1], "instance_id": 4, "occlusion_rate": 0.5, "depth": 9.0,
}  # fmt: skip
_YTVIS = {"video_id": 1, "category_id": 1, "score": 0.5, "segmentations": [_SEGMENTATIONS[1], None]}
_BOTH = _ROW | {"inmodal_seg": _SEGMENTATIONS[1], "inmodal_bbox": [1, 2, 3, 4]}


def _predictions(path: Path) -> None:
    predictions = read_predictions(path, _TRUTH)
    for kind in ("visible", "amodal"):
        if predictions.has(kind):
            predictions.areas(kind)


_add("results", [json.dumps([r, r]).encode() for r in (_ROW, _YTVIS, _BOTH)], spoil.of_json,
     _file("r.json", _predictions))  # fmt: skip


def _evaluation() -> list[bytes]:
    names = {"images": [1, 2], "classes": ["car"], "score": [0.5], "image": [0], "class_id": [0]}
    arrays = {k: np.array(v) for k, v in names.items()} | {"rank": np.zeros(1, np.int16)}
    hits = {k: np.zeros((1, 10), bool) for k in ("hit", "ignored")}
    file = io.BytesIO()
    np.savez(file, **arrays, **hits, truth=np.ones((2, 1), np.int32))
    return [file.getvalue()]


_add("matches", _evaluation(), spoil.of_zip(spoil.of_npy), _file("m.npz", Matches.load))


def _compared(path: Path) -> None:
    path.with_name("matches_amodal.npz").write_bytes(_evaluation()[0])
    run = results.read(path.parent)
    results.compare_runs([run, run], draws=10)


_METRICS = {"level": "image", "protocol": "coco", "scores": {"amodal": {}}, "inputs": {"gt": "a"}}
_add("metrics", [json.dumps(_METRICS).encode()], spoil.of_json, _file("metrics.json", _compared))


# Pickles, arrays, pictures, weights.

_VALUE = {
    "points": np.arange(12, dtype=np.float32).reshape(4, 3), "labels": np.array([1, 2, 3]),
    "text": ["a", b"b", (1, 2), {3}, None, True, 1 + 2j],
    "objects": np.array([{"a": 1}, "b"], object),
}  # fmt: skip
_add("pickle", [pickle.dumps(_VALUE, protocol=p) for p in range(6)], spoil.of_pickle,
     _file("a.pkl", pickles.load))  # fmt: skip


def _npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


_ARRAYS = [_npy(v) for v in (np.ones((2, 3)), np.array(["a", "bc"]), np.array(["a"], object))]
_add("npy", _ARRAYS, spoil.of_npy, _file("a.npy", pickles.load_npy))

_PIXELS = RNG.integers(0, 255, (12, 16, 3), np.uint8)
_PICTURES = [cv2.imencode(s, _PIXELS)[1].tobytes() for s in (".png", ".jpg", ".bmp", ".webp")]
_PICTURES.append(cv2.imencode(".png", _PIXELS[..., 0].astype(np.uint16) * 99)[1].tobytes())
_palette = io.BytesIO()
Image.fromarray(_PIXELS).quantize(8).save(_palette, "PNG")


def _picture(path: Path) -> None:
    list(pictures.check_image(path))
    with suppress(InputError):
        pictures.read_labels(path)
    pictures.read_image(path)


_add("picture", [*_PICTURES, _palette.getvalue()], spoil.of_picture, _file("a.png", _picture))


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


_add("checkpoint", _made(_safetensors, "a.safetensors"), spoil.of_safetensors,
     _file("a.safetensors", _checkpoint))  # fmt: skip


def _torch(zipped: bool) -> bytes:
    file = io.BytesIO()
    state = {"state_dict": {"a.weight": torch.ones(2, 3), "b": torch.zeros(4)}, "epoch": 3}
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


_add("weights", [_torch(True)], spoil.of_zip(spoil.of_pickle), _file("a.pth", read_file))
_add("weights_old", [_torch(False)], spoil.of_bytes, _file("a.pth", read_file))
_add("weights_pickle", [pickle.dumps({"blobs": {"a.weight": np.ones((2, 3))}})], spoil.of_pickle,
     _file("a.pkl", read_file))  # fmt: skip


# Settings.


def _rules(data: bytes, _: Path) -> None:
    texts = data.decode("utf-8", "replace").splitlines() or [""]
    kind = GeometricConfig if "min_score" in texts[0] else DriveSettings
    checked(kind, parse_rules(texts, "--set"), "--set")


_DRIVE = b"sync_slop=0.02\nminimum_range=1\ncalibration=\nextrinsics=[0,0,0,0,0,0,1]\n"
_add("rules", [b"min_score=0.3\n", _DRIVE], spoil.of_text, _rules)
_SETTINGS = yaml.safe_dump({"min_score": 0.3}).encode()


def _settings(path: Path) -> None:
    checked(GeometricConfig, parse_rules([str(path)], "--set"), "--set")


_add("settings_file", [_SETTINGS], spoil.of_yaml, _file("s.yaml", _settings))
_CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").rglob("*.yaml"))
_add("training", [p.read_bytes() for p in _CONFIGS[::5]], spoil.of_yaml,
     _file("t.yaml", training_config.read))  # fmt: skip
_CAMERAS = yaml.safe_dump(
    [{"name": "front", "image": "/front/image", "extrinsics": [0.0] * 6 + [1.0]}, {"name": "left"}]
).encode()


def _launched(data: bytes, folder: Path) -> None:
    path = folder / "cameras.yaml"
    path.write_bytes(data)
    launching.check({"cameras": str(path), "image": "/{camera}/image_raw"})


_add("cameras", [_CAMERAS], spoil.of_yaml, _launched)


# Messages.

_FACTORY = RosbagsFactory()
_STORE = typestore()
_CALIBRATION = calibration()


def _cdr(message: Any, kind: str) -> bytes:
    return bytes(_STORE.serialize_cdr(message, kind))


def _tracks() -> Tracks:
    truth = SAMPLES[0].truth
    assert truth is not None
    return truth


def _message(name: str, kind: str, messages: Sequence[Any], read: Callable[[Any], Any]) -> None:
    def on(data: bytes, _: Path) -> None:
        try:
            message = _STORE.deserialize_cdr(data, kind)
        except MemoryError:
            raise
        except Exception:  # rosbags' own errors; the reader of bags turns them into ours
            return
        read(message)

    seeds = [_cdr(m, kind) for m in messages]
    _add(name, seeds, spoil.of_message(lambda: _STORE.fielddefs, _STORE, kind), on)


def _info(message: Any) -> None:
    camera = read_camera(message, "camera_info").of_size(100, 60)
    camera.calibration(np.eye(4))
    if camera.distorted and camera.width * camera.height < 1e6:
        camera.rectify(np.zeros((camera.height, camera.width, 3), np.uint8))


def _image_messages() -> list[Any]:
    made = [image_message(_FACTORY, _PIXELS, BEGIN, "camera")]
    grey = np.ascontiguousarray(_PIXELS[..., 0])
    made += [image_message(_FACTORY, grey, BEGIN, "c", e) for e in ("mono8", "bayer_rggb8")]
    two = np.ascontiguousarray(_PIXELS[..., :2])
    made += [_FACTORY.image(two, e, made[0].header) for e in ("yuv422", "yuyv")]
    for rows, encoding in ((18, "nv12"), (36, "nv24")):
        message = image_message(_FACTORY, np.zeros((rows, 16), np.uint8), BEGIN, "c", encoding)
        message.height = 12
        made.append(message)
    return made


def _compressed() -> list[Any]:
    kind = "sensor_msgs/msg/CompressedImage"
    names = ("png", "rgb8; jpeg compressed bgr8", "bmp", "webp", "bayer_rggb8; png")
    bodies = [np.frombuffer(p, np.uint8) for p in _PICTURES]
    return [_FACTORY.create(kind, format=n, data=b) for n, b in zip(names, bodies, strict=True)]


_where = "topic"
_POINTS = np.column_stack([RNG.uniform(1, 30, (30, 3)), RNG.random(30)]).astype(np.float32)
_depth = image_message(_FACTORY, np.full((12, 16), 5, np.float32), BEGIN, "camera")
_millimetres = image_message(_FACTORY, np.full((12, 16), 5, np.uint16), BEGIN, "c", "16UC1")
_ARRAY = instances_message(
    _FACTORY, _tracks(), stamp=BEGIN, frame_id="camera", classes=CLASSES, lidar_frame="lidar"
)
_message("image", "sensor_msgs/msg/Image", _image_messages(), partial(read_image, where=_where))
_message("compressed", "sensor_msgs/msg/CompressedImage", _compressed(),
         partial(read_image, where=_where))  # fmt: skip
_message("depth", "sensor_msgs/msg/Image", [_depth, _millimetres],
         partial(read_depth, where=_where))  # fmt: skip
_message("points", "sensor_msgs/msg/PointCloud2",
         [points_message(_FACTORY, _POINTS, BEGIN, "lidar")],
         partial(read_scan, where=_where, minimum_range=0.5, stamp=BEGIN))  # fmt: skip
_pinhole = camera_info_message(_FACTORY, _CALIBRATION.K, 100, 60, BEGIN, "camera")
_message("camera_info", "sensor_msgs/msg/CameraInfo", [_pinhole], _info)
_message("transform", "geometry_msgs/msg/TransformStamped",
         [transform_message(_FACTORY, "camera", "lidar", _CALIBRATION.camera_from_lidar, BEGIN)],
         partial(read_transform, where=_where))  # fmt: skip
_message("pose", "geometry_msgs/msg/Pose", [pose_message(_FACTORY, np.ones(3), 0.5)],
         partial(read_pose, where=_where))  # fmt: skip


def _array(message: Any) -> None:
    for read in (read_instances, read_tracks):
        with suppress(InputError):
            made = read(message, _where)
            made.amodal.rle().areas()


_message("instances", "amodal_msgs/msg/AmodalInstanceArray", [_ARRAY], _array)


# Bags.


def _bag(root: Path, storage: str = "mcap") -> None:
    """A bag of two frames with truth."""
    with BagWriter(root / "bag", storage) as bag:
        bag.add_topic("/camera/camera_info", "sensor_msgs/msg/CameraInfo")
        bag.add_topic("/camera/image_rect", "sensor_msgs/msg/Image")
        bag.add_topic("/points", "sensor_msgs/msg/PointCloud2")
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        bag.add_topic("/ground_truth", "amodal_msgs/msg/AmodalInstanceArray")
        place = transform_message(
            _FACTORY, "camera", "lidar", _CALIBRATION.camera_from_lidar, BEGIN
        )
        tf = _FACTORY.create("tf2_msgs/msg/TFMessage", transforms=[place])
        bag.write("/tf_static", tf, BEGIN)
        for k in range(2):
            stamp = BEGIN + k * PERIOD
            info = camera_info_message(_FACTORY, _CALIBRATION.K, 100, 60, stamp, "camera")
            picture = image_message(_FACTORY, np.zeros((*SIZE, 3), np.uint8), stamp, "camera")
            bag.write("/camera/camera_info", info, stamp)
            bag.write("/camera/image_rect", picture, stamp)
            bag.write("/points", points_message(_FACTORY, _POINTS, stamp, "lidar"), stamp)
            truth = instances_message(
                _FACTORY, _tracks(), stamp=stamp, frame_id="camera", classes=CLASSES
            )
            bag.write("/ground_truth", truth, stamp)


def read_bag(path: Path) -> None:
    """All that is done with a bag."""
    with BagDrive(path) as frames:
        assert frames.bag.duration >= 0
        for raw in frames.bag.raw_messages():
            frames.bag.current(raw)
        for _ in frames:
            pass
    read_truth(path)


def _in_folder(name: str, storage: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        if not (folder / "bag").exists():
            _bag(folder, storage)
        (folder / "bag" / name).write_bytes(data)
        read_bag(folder / "bag")

    return read


def _of_database(rng: Any, data: bytes) -> bytes:
    """A value somewhere in the tables, or the bytes."""
    if rng.random() < 0.5:
        return spoil.of_bytes(rng, data)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.db3"
        path.write_bytes(data)
        with sqlite3.connect(path) as base:
            names = base.execute("select name from sqlite_master where type='table'")
            tables = [r[0] for r in names]
            table = rng.choice(tables)
            columns = [r[1] for r in base.execute(f"pragma table_info({table})")]
            value = rng.choice((None, 0, -1, 2**62, "x", b"x", "../a", 1e300, ""))
            where = f"where rowid in (select rowid from {table} order by random() limit 1)"
            with suppress(sqlite3.Error):
                if rng.random() < 0.1:
                    base.execute(f"delete from {table} {where}")
                else:
                    base.execute(f"update {table} set {rng.choice(columns)} = ? {where}", [value])
        base.close()
        return path.read_bytes()


_MCAP, _YAML = _made(_bag, "bag/bag.mcap", "bag/metadata.yaml")
_DB3, _YAML3 = _made(lambda r: _bag(r, "sqlite3"), "bag/bag.db3", "bag/metadata.yaml")
_add("mcap", [_MCAP], spoil.of_bytes, _file("a.mcap", read_bag))
_add("db3", [_DB3], _of_database, _in_folder("bag.db3", "sqlite3"))
_add("metadata", [_YAML], spoil.of_yaml, _in_folder("metadata.yaml", "mcap"))
_add("metadata_db3", [_YAML3], spoil.of_yaml, _in_folder("metadata.yaml", "sqlite3"))

_DEFINITION = (
    b"builtin_interfaces/Time stamp\nfloat64[9] k\nint32[3] name\nint32 ONE=1\n"
    b"char[] data\nPart[] parts\n"
    + b"=" * 80
    + b"\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
    + b"=" * 80
    + b"\nMSG: made_msgs/Part\nstring<=10 text\nuint8[<=3] few\nbool[1000] flags\n"
)


def _of_definition(rng: Any, data: bytes) -> bytes:
    if rng.random() < 0.4:
        numbers = ("100000000", "3000000", "0", "-1", "<=99999999999", "")
        text = data.decode("latin-1")
        sizes = [k for k, c in enumerate(text) if c == "["]
        at = rng.choice(sizes) if sizes else 0
        end = text.find("]", at)
        kinds = ("string", "std_msgs/Header", "Part", "made_msgs/Made", "float64", "wstring")
        new = f"{rng.choice(kinds)}[{rng.choice(numbers)}] f{rng.randrange(99)}\n"
        if rng.random() < 0.5:
            text = text[: at + 1] + rng.choice(numbers) + text[end:]
        else:
            text = new * rng.choice((1, 1, 1, 20_000)) + text
        return text.encode("latin-1", "replace")
    return spoil.of_text(rng, data)


def _definition(data: bytes, folder: Path) -> None:
    """A bag with a message of zeros of that type."""
    shutil.rmtree(folder / "d", ignore_errors=True)
    text = data.decode("utf-8", "replace")
    with Writer(folder / "d", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        connection = bag.add_connection("/a", "made_msgs/msg/Made", msgdef=text, rihs01="RIHS01_0")
        bag.write(connection, BEGIN, b"\0\1\0\0" + bytes(100))
    with BagReader(folder / "d") as reader:
        for _ in reader.messages():
            pass


get_typestore(Stores.EMPTY).register(get_types_from_msg(_DEFINITION.decode(), "made_msgs/msg/Made"))
_add("definition", [_DEFINITION], _of_definition, _definition)
