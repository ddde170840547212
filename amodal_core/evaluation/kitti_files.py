"""Labels and result files of KITTI's benchmark of objects, paired by name; results written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from amodal_core.datasets.kitti_labels import KittiLabel, read_object_labels
from amodal_core.datasets.kitti_write import label_lines
from amodal_core.errors import InputError, foreign
from amodal_core.files import atomic
from amodal_core.frame import Calibration, Tracks
from amodal_core.geometry.calibration import KittiCalibration

_PAIR = tuple[list[list[KittiLabel]], list[list[KittiLabel]]]


def read_pairs(truth: str | Path, results: str | Path, frames: Sequence[str] = ()) -> _PAIR:
    """Labels and detections of the frames that have a result file.

    Args:
        truth: `label_2`, or the folder of the benchmark or of its `training` around it.
        results: a folder of files such as 000012.txt, or the one around it named `kitti`.
        frames: the names of all that are to be there; () for what there is.

    Raises:
        InputError: both are one folder, a folder or a file is missing, a line is malformed or has
            no score.
    """
    labels = _folder(Path(truth), ("", "label_2", "training/label_2"), "no label_2 with files")
    results = _folder(Path(results), ("", "kitti"), "no result files such as 000012.txt")
    if labels.resolve() == results.resolve():
        cure = "give --dt the --out of `amodal infer`, or another folder of result files"
        raise InputError("given as labels and as results", str(results), cure)
    names = list(frames) or sorted(p.stem for p in results.glob("*.txt") if p.stem.isdecimal())
    pairs: _PAIR = [], []
    for name in names:
        for folder, what in ((labels, "labels"), (results, "results")):
            if not (folder / f"{name}.txt").exists():
                raise InputError(f"no {what} of {name}", str(folder), "give the same frames")
        pairs[0].append(read_object_labels(labels / f"{name}.txt"))
        pairs[1].append(_results(results / f"{name}.txt"))
    return pairs


def _folder(path: Path, places: Sequence[str], what: str) -> Path:
    for place in places:
        if any(p.stem.isdecimal() for p in (path / place).glob("*.txt")):
            return path / place
    raise InputError(what, str(path), "see `amodal eval kitti --help`")


def _results(path: Path) -> list[KittiLabel]:
    labels = read_object_labels(path)
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    for number, row in enumerate(rows, 1):
        if len(row) != 16:
            raise InputError(
                "a detection with no score", f"{path}:{number}", "it stands in the 16th column"
            )
    return labels


def write_results(
    path: Path,
    detections: Tracks,
    types: Sequence[str],
    kitti: KittiCalibration,
) -> None:
    """A result file of one image, whole or not at all; what has no 3D box stays out.

    Args:
        path: such as `kitti/000012.txt`.
        detections: with `boxes3d` in the LiDAR frame.
        types: KITTI's name of each.
        kitti: the calibration of the image; results stand in its rectified camera 0.
    """
    height, width = detections.size
    rect_from_lidar = kitti.rect_from_cam @ kitti.cam_from_lidar
    calibration = Calibration(kitti.P[:, :3], rect_from_lidar, width, height)
    assert detections.boxes3d is not None
    solid = np.isfinite(np.asarray(detections.boxes3d)).all(axis=1)
    kept = replace(detections[solid], occlusion_rates=np.zeros(int(solid.sum()), np.float32))
    names = [name for name, has in zip(types, solid, strict=True) if has]
    lines = label_lines(kept, names, calibration).splitlines()
    scores = np.asarray(kept.scores, np.float64).tolist()
    rows = [f"{line} {score:.6f}\n" for line, score in zip(lines, scores, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        part.write_text("".join(rows))


def read_names(path: str | Path) -> list[str]:
    """Names of frames, one a line, such as those of ImageSets/val.txt.

    Raises:
        InputError: the file cannot be read, or there is none in it.
    """
    with foreign(path, "cannot read the names of frames", "give a list such as ImageSets/val.txt"):
        names = Path(path).read_text().split()
    if not names:
        raise InputError("no name in it", str(path), "give a list such as ImageSets/val.txt")
    return names
