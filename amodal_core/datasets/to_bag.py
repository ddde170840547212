"""Videos of a data set to rosbag2 bags, named as in `amodal_core.drive.topics`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from amodal_core.bags.writer import BagWriter
from amodal_core.datasets.base import Dataset
from amodal_core.drive.topics import CAMERA_INFO, GROUND_TRUTH, IMAGE, POINTS, TF_STATIC
from amodal_core.drive.writer import DriveWriter, camera_link
from amodal_core.errors import InputError


def write_video(
    data: Dataset,
    video: str,
    out: str | Path,
    *,
    storage: str = "mcap",
    compress: bool = False,
    limit: int | None = None,
) -> Iterator[str]:
    """Write one video as a bag; yields each sample's name.

    Image and ground truth are always written, camera_info where the camera is known, points and
    /tf_static where there are scans.

    Args:
        data: a data set of videos.
        video: one of `data.videos`.
        out: the bag's folder.
        storage: "mcap" or "sqlite3".
        compress: zstd.
        limit: write so many samples at most.

    Raises:
        InputError: there is no such video, a frame cannot be read, or the bag not be written.
    """
    indices = data.in_video(video)[:limit]
    if not indices:
        raise InputError(f"no video '{video}'", str(data.path), "`amodal data stats` lists them")
    first_turns: dict[int, int] = {}
    with BagWriter(out, storage, compress=compress) as bag:
        first = data.frame(indices[0])
        lidar = first.points is not None and first.calibration is not None
        topics = {
            TF_STATIC: lidar,
            IMAGE: True,
            CAMERA_INFO: first.calibration is not None,
            POINTS: first.points is not None,
            GROUND_TRUTH: True,
        }
        writer = DriveWriter(bag, [topic for topic, present in topics.items() if present])
        if lidar:
            writer.transforms(TF_STATIC, [camera_link(first)], first.stamp)
        for turn, index in enumerate(indices):
            sample = data[index]
            truth = None
            if sample.truth is not None and data.has_masks:
                truth = sample.truth.numpy()
                ages = [turn - first_turns.setdefault(i, turn) + 1 for i in truth.ids.tolist()]
                truth = replace(truth, ages=np.array(ages, np.int64))
            writer.frame(sample.frame, truth, data.classes)
            yield sample.name
