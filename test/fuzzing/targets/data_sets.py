"""Data sets: one of their files is spoilt, the others stay."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import recorded_scenes as recorded
import tao_scenes
from datasets_scenes import CLASSES, SIZE, calibration

from amodal_core.datasets import amodal_synth_drive_write, coco, kins, kitti_write, labelme, sailvos
from amodal_core.datasets.registry import open_dataset
from amodal_core.datasets.statistics import Statistics, count
from amodal_core.errors import InputError
from amodal_core.evaluation.truth import read_truth
from fuzzing import mutations as spoil

from .base import EMPTY, SAMPLES, add


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
    add(name, [seed], mutate, read)


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
_data_set(
    "tao_amodal", "tao_amodal", tao_scenes.write, _first_json(tao_scenes.write), spoil.of_json
)


def _nuscenes(root: Path) -> None:
    recorded.write_nuscenes(root, keys=1)


def _argoverse(root: Path) -> None:
    recorded.write_argoverse(root, scans=1)


def _waymo(root: Path) -> None:
    recorded.write_waymo(root, frames=1)


for _name in ("sample_data", "calibrated_sensor", "ego_pose", "sample_annotation"):
    _file = f"v1.0-mini/{_name}.json"
    _data_set(f"nuscenes_{_name}", "nuscenes", _nuscenes, _file, spoil.of_json)
for _name, _part in (("boxes", "*/annotations.feather"), ("sweep", "*/sensors/lidar/*.feather")):
    _data_set(f"av2_{_name}", "av2", _argoverse, _find(_argoverse, _part), spoil.of_bytes)
for _name in ("lidar", "camera_image", "lidar_box"):
    _file = f"{_name}/{recorded.SEGMENT}.parquet"
    _data_set(f"waymo_{_name}", "waymo", _waymo, _file, spoil.of_bytes)
