"""Write drives in AmodalSynthDrive's current layout."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core import pickles
from amodal_core.classes import ClassMap
from amodal_core.datasets.amodal_synth_drive import (
    CALIBRATION,
    CAMERAS,
    MODALITY,
    occlusion_entry,
)
from amodal_core.datasets.amodal_synth_drive_lidar import in_box
from amodal_core.datasets.base import new_folder
from amodal_core.datasets.categories import ASD, ASD_THINGS
from amodal_core.datasets.image_files import write_bytes, write_image
from amodal_core.datasets.json_write import dumps
from amodal_core.errors import InputError
from amodal_core.files import inside
from amodal_core.frame import Calibration, Frame, Sample, Tracks


def write(
    root: str | Path,
    samples: Iterable[Sample],
    classes: Sequence[str],
    *,
    class_map: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Write `<root>/full/...`; yields each sample's "<sequence>/<camera>/<number>".

    Masks are exact; images are JPEG, as the release has them. A video named "<sequence>/<camera>"
    keeps both, any other becomes a sequence of the front camera. What the release lacks is added as
    `full/calibration.json`. Boxes of scans give each point its class.

    Args:
        root: a folder that is made.
        samples: frames with image and truth, those of a video in the order of time.
        classes: names of the truth's class ids.
        class_map: names of AmodalSynthDrive for names of `classes` where they are not the same.

    Raises:
        InputError: the folder is not empty, a frame lacks its image, a class has no name there,
            visible masks overlap, or a class has more than 999 instances in a sequence.
    """
    base = new_folder(Path(root)) / "full"
    things = [ASD[k] for k in ASD_THINGS]
    matched = ClassMap.between(classes, things, class_map).complete()
    categories = [ASD_THINGS[k] for k in matched]
    numbers: dict[str, dict[tuple[int, int], int]] = {}
    counts: dict[str, int] = {}
    calibrations: dict[str, Any] = {}
    for sample in samples:
        sequence, camera = _drive(sample)
        video = f"{sequence}/{camera}"
        number = counts[video] = counts.get(video, -1) + 1
        stem = f"{camera}_full_{number:04d}"
        if sample.frame.image is None:
            raise InputError("a frame without an image", f"{video}/{number:04d}")
        place = inside(camera, sequence)
        write_image(base / "images" / place / f"{stem}_rgb.jpg", sample.frame.image)
        truth = (
            sample.truth.numpy() if sample.truth is not None else Tracks.empty(sample.frame.size)
        )
        instances = numbers.setdefault(sequence, {})
        labels, entries = _annotate(truth, categories, instances, f"{video}/{number:04d}")
        write_image(base / MODALITY / place / f"{stem}_aminseg.png", labels)
        annotations = base / MODALITY / place / f"{stem}_aminseg.json"
        write_bytes(annotations, dumps(entries).encode())
        _write_lidar(base, sequence, number, sample.frame, truth, categories)
        if sample.frame.calibration is not None:
            calibrations[camera] = _calibration(sample.frame.calibration)
            write_bytes(base / CALIBRATION, dumps(calibrations).encode())
        yield f"{video}/{number:04d}"


def _drive(sample: Sample) -> tuple[str, str]:
    sequence, _, camera = sample.video.rpartition("/")
    if sequence and camera in CAMERAS:
        return sequence.replace("/", "_"), camera
    return (sample.video or "sequence").replace("/", "_"), CAMERAS[0]


def _annotate(
    truth: Tracks, categories: list[int], numbers: dict[tuple[int, int], int], where: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """(H, W) uint16 labels and the JSON's entries of one image."""
    labels = np.zeros(truth.size, np.uint16)
    entries: dict[str, Any] = {}
    amodal, visible = truth.amodal.rle(), truth.visible.rle()
    crops, offsets = visible.crops()
    for k in range(len(truth)):
        category, track = categories[int(truth.class_ids[k])], int(truth.ids[k])
        same = sum(c == category for c, _ in numbers)
        instance = numbers.setdefault((category, track), same + 1)
        if instance > 999:
            raise InputError(f"more than 999 instances of {ASD[category]}", where)
        value = 1000 * category + instance
        (x, y), crop = offsets[k].tolist(), crops[k]
        window = labels[y : y + crop.shape[0], x : x + crop.shape[1]]
        if window[crop].any():
            raise InputError("visible masks overlap", where, "a pixel shows one object only")
        window[crop] = value
        entries[str(value)] = {
            "track_id": track,
            "category_id": category,
            "iscrowd": 0 if truth.ignore is None else int(truth.ignore[k]),
            **occlusion_entry(amodal[[k]], visible[[k]]),
        }
    return labels, entries


def _write_lidar(
    base: Path, sequence: str, number: int, frame: Frame, truth: Tracks, categories: list[int]
) -> None:
    """Scan and boxes in CARLA's left-handed axes, the sensor being the origin of the world."""
    boxes = None if truth.boxes3d is None else np.asarray(truth.boxes3d, np.float64)
    boxed = np.flatnonzero(np.isfinite(boxes).all(axis=1)).tolist() if boxes is not None else []
    scans = base / "lidar" / sequence / f"full_{number:04d}_Lidar.pkl"
    if frame.points is not None and not scans.exists():  # one scan serves all cameras
        points = np.asarray(frame.points, np.float32)
        labels = np.zeros(len(points), np.int64)
        for k in boxed:
            assert boxes is not None
            labels[in_box(points[:, :3], boxes[k])] = categories[int(truth.class_ids[k])]
        scan = {
            "points": points * np.array([1, -1, 1, 1], np.float32),
            "labels": labels,
            "transform": np.eye(4),
            "horizontal_angle": 0.0,
        }
        _write_pickle(scans, scan)
    if boxes is not None:
        path = base / "bboxes" / sequence / f"bboxess_{number:04d}.pkl"
        others = pickles.load(path) if path.exists() else {}
        corners = {int(truth.ids[k]): _corners(boxes[k]) for k in boxed}
        _write_pickle(path, others | corners)


def _write_pickle(path: Path, value: Any) -> None:
    # Protocol 2 names NumPy's functions as every version of it can read them.
    write_bytes(path, pickle.dumps(value, protocol=2))


def _corners(box: np.ndarray) -> np.ndarray:
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    c, s = np.cos(box[6]), np.sin(box[6])
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return (box[:3] + (signs * box[3:6] / 2) @ turn.T) * np.array([1.0, -1.0, 1.0])


def _calibration(calibration: Calibration) -> dict[str, Any]:
    return {
        "K": calibration.K,
        "camera_from_lidar": calibration.camera_from_lidar,
        "width": calibration.width,
        "height": calibration.height,
    }
