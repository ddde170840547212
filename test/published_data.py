"""Tiny data sets in the layouts in which the papers' data are published."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from datasets_scenes import CLASSES, SIZE, drive, sample
from pycocotools import mask as coco

from amodal_core.datasets import amodal_synth_drive_write, kins, sailvos
from amodal_core.datasets.kitti_write import calibration_lines
from amodal_core.datasets.registry import open_dataset
from amodal_core.evaluation.truth import index_of
from amodal_core.frame import Calibration, Sample
from amodal_core.masks.mask_set import RleMasks

DRIVE = "2011_09_26_drive_0001_sync"
EMPTY = RleMasks.empty(SIZE, 1).counts[0]
_SEED = 4


def write_image(path: Path, s: Sample) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), s.frame.image)


def rle(counts: bytes) -> dict[str, Any]:
    return {"size": list(SIZE), "counts": counts.decode()}


def coco_like(s: Sample, name: str) -> dict[str, Any]:
    """COCOA-cls and D2SA: COCO with visible_mask and invisible_mask where something is hidden."""
    t = s.truth
    annotations = []
    for k in range(len(t)):
        x1, y1, x2, y2 = t.amodal_boxes[k].tolist()
        a = {
            "id": k + 1,
            "image_id": 5,
            "category_id": 3,
            "iscrowd": 0,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": int(t.amodal.rle().areas()[k]),
            "segmentation": rle(t.amodal.rle().counts[k]),
            "occlude_rate": float(t.occlusion_rates[k]),
        }
        if t.occlusion_rates[k] > 0:
            a["visible_mask"] = rle(t.visible.rle().counts[k])
        annotations.append(a)
    image = {"id": 5, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
    categories = [{"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}]
    return {"images": [image], "annotations": annotations, "categories": categories}


def write_kins(root: Path) -> None:
    """KINS/update_test_2020.json beside KITTI's testing/image_2: two images."""
    made = root / "made"
    rng = np.random.default_rng(_SEED)
    list(kins.write(made, [sample(rng), sample(rng)], CLASSES))
    (root / "KINS" / "testing").mkdir(parents=True)
    shutil.move(made / "training" / "image_2", root / "KINS" / "testing" / "image_2")
    shutil.move(made / "update_train_2020.json", root / "KINS" / "update_test_2020.json")


def write_cocoa_cls(root: Path) -> None:
    """COCOA: annotations/COCO_amodal_val2014_with_classes.json and COCO's val2014: an image."""
    s = sample(np.random.default_rng(_SEED))
    name = "COCO_val2014_000000000005.jpg"
    write_image(root / "COCOA" / "val2014" / name, s)
    path = root / "COCOA" / "annotations" / "COCO_amodal_val2014_with_classes.json"
    path.parent.mkdir()
    path.write_text(json.dumps(coco_like(s, name)))


def write_sailvos(root: Path) -> None:
    """sailvos_cut/valid/joint.json: a clip of three frames."""
    samples = drive(np.random.default_rng(_SEED), 3, "ah_3a_ext_0019")
    list(sailvos.write(root / "sailvos_cut" / "valid", samples, ("person", "car", "truck")))


def write_movi(folder: Path, samples: Sequence[Sample], K: Sequence[Sequence[float]]) -> None:
    """MOVi as released with EoRaS: a video "17", of which two objects are evaluated."""
    video, frames = folder / "17", len(samples)
    video.mkdir(parents=True)
    meta = {
        "metadata": {"num_frames": frames, "height": SIZE[0], "width": SIZE[1]},
        "camera": {"K": K, "R": np.eye(3).tolist(), "positions": [[0, 0, 0]] * frames},
        "instances": [{"bboxes": [], "bbox_frames": [], "bboxes_3d": []} for _ in range(12)],
    }
    (video / "metadata.json").write_text(json.dumps(meta))
    for turn, s in enumerate(samples):
        rgba = np.dstack([cv2.cvtColor(s.frame.image, cv2.COLOR_RGB2BGR), np.full(SIZE, 255)])
        cv2.imwrite(str(video / f"rgba_full_{turn:05d}.png"), rgba)
        seen = np.zeros(SIZE, np.uint8)
        whole = {n: np.zeros(SIZE, np.uint8) for n in range(12)}
        amodal, visible = s.truth.amodal.rle().dense(), s.truth.visible.rle().dense()
        for k, number in enumerate(s.truth.ids.tolist()):
            seen[visible[k]] = number + 1
            whole[number][amodal[k]] = number + 1
        cv2.imwrite(str(video / f"segmentation_full_{turn:05d}.png"), seen)
        for number, mask in whole.items():
            cv2.imwrite(str(video / f"segmentation_{number}_{turn:05d}.png"), mask)
        cv2.imwrite(str(video / f"depth_full_{turn:05d}.tiff"), np.full(SIZE, 7, np.float32))
    np.save(folder / "instance_list.npy", np.array(["17-11", "17-4"]))


def write_movis(root: Path) -> None:
    """movi_b/test and movi_d/test: a video of three frames each."""
    for name in ("movi_b", "movi_d"):
        samples = drive(np.random.default_rng(_SEED), 3)
        K = [[1.1, 0, -0.5], [0, -1.8, -0.5], [0, 0, -1]]
        write_movi(root / name / "test", samples, K)


def write_kins_video(root: Path, samples: Sequence[Sample], split: str = "val") -> None:
    """KINS_Video_Car with EoRaSMissing: car_data/*.pkl, Kitti/raw_video and Kitti/calib."""
    data: dict[int, dict[int, Any]] = {}
    full: dict[int, dict[int, Any]] = {}
    for turn, s in enumerate(samples):
        folder = root / "Kitti" / "raw_video" / "2011_09_26" / DRIVE
        write_image(folder / f"{turn + 7:010d}.png", s)
        for k, number in enumerate(s.truth.ids.tolist()):
            if not s.truth.visible.rle().areas()[k]:
                continue
            x1, y1, x2, y2 = s.truth.visible_boxes[k].astype(int).tolist()
            size = list(SIZE)
            data.setdefault(number, {})[turn] = {
                "VM": {"size": size, "counts": s.truth.visible.rle().counts[k]},
                "VM_bbox": [y1, y2, x1, x2],
                "loss_mask": {"size": size, "counts": EMPTY},
            }
            # KINS holds only every other frame.
            counts = s.truth.amodal.rle().counts[k] if turn % 2 == 0 else EMPTY
            full.setdefault(number, {})[turn] = {"FM": {"size": size, "counts": counts}}
    folder = root / "car_data"
    folder.mkdir()
    (folder / f"{split}_data.pkl").write_bytes(pickle.dumps({DRIVE: data}))
    (folder / f"{split}_data_full_mask.pkl").write_bytes(pickle.dumps({DRIVE: full}))
    calib = root / "Kitti" / "calib"
    calib.mkdir()
    K = np.array([[70.0, 0, 50], [0, 70.0, 30], [0, 0, 1]])
    T = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    (calib / "26.txt").write_text(calibration_lines(Calibration(K, T, SIZE[1], SIZE[0])))


def write_kitti_cars(root: Path) -> None:
    """KINS_Video_Car's test split: three frames."""
    samples = drive(np.random.default_rng(_SEED), 3)
    write_kins_video(root / "KINS_Video_Car", samples, "test")


def write_synth_drive(root: Path) -> None:
    """amodal_synth_drive/val, and what GenVIS finds in it: three frames, one object hidden."""
    samples = drive(np.random.default_rng(_SEED), 3, "20230702032750_SoftRainSunset_Town10HD/front")
    folder = root / "amodal_synth_drive" / "val"
    list(amodal_synth_drive_write.write(folder, samples, CLASSES))
    data = open_dataset(folder)
    ids = {k: c for c, k in index_of(data).category_ids.items()}
    nothing = coco.encode(np.zeros(SIZE, np.uint8, order="F"))["counts"].decode()
    tracks: dict[int, tuple[int, list[str]]] = {}
    for k in range(len(data)):
        truth = data.truth(k)
        for n, number in enumerate(truth.ids.tolist()):
            empty = (ids[int(truth.class_ids[n])], [nothing] * len(data))
            tracks.setdefault(number, empty)[1][k] = truth.visible.rle().counts[n].decode()
    rows = [
        {
            "video_id": 1,
            "category_id": category,
            "score": 0.5,
            "segmentations": [{"size": list(SIZE), "counts": c} for c in counts],
        }
        for category, counts in tracks.values()
    ]
    (root / "asd_valid_genvis_1080_results.json").write_text(json.dumps(rows))


def write_kitti_object(root: Path, real: Path) -> None:
    """KITTI/training with ImageSets/val.txt: two of KITTI's own frames."""
    training = root / "KITTI" / "training"
    names = sorted(p.stem for p in (real / "training" / "image_2").glob("*.png"))[:2]
    endings = {"image_2": "png", "velodyne": "bin", "calib": "txt", "label_2": "txt"}
    for folder, ending in endings.items():
        (training / folder).mkdir(parents=True)
        for name in names:
            file = real / "training" / folder / f"{name}.{ending}"
            (training / folder / file.name).symlink_to(file.resolve())
    (root / "KITTI" / "ImageSets").mkdir()
    (root / "KITTI" / "ImageSets" / "val.txt").write_text("".join(f"{n}\n" for n in names))
