"""Finished sequences to bags and data set layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from amodal_core.bags.writer import BagWriter
from amodal_core.datasets import amodal_synth_drive_write, kins, kitti_write
from amodal_core.datasets.image_files import write_bytes
from amodal_core.drive.topics import (
    BASE_FRAME,
    CAMERA_INFO,
    GROUND_TRUTH,
    IMAGE,
    LIDAR_FRAME,
    POINTS,
    TF,
    TF_STATIC,
    WORLD_FRAME,
)
from amodal_core.drive.writer import DriveWriter, camera_link
from amodal_core.frame import Sample, Tracks
from amodal_core.synthetic.frames import SyntheticFrame
from amodal_core.synthetic.truth import CLASSES

FORMATS = ("bag", "kins", "asd", "kitti")
_Row = tuple[SyntheticFrame, Tracks]


def write_bag(
    path: Path,
    rows: Iterable[_Row],
    lidar_height: float,
    note: Callable[[SyntheticFrame, Tracks], None],
) -> None:
    """Write one sequence as a compressed MCAP bag.

    KITTI's topics, the car's pose on /tf, the truth on /ground_truth.

    Raises:
        InputError: something lies at `path`.
    """
    base_from_lidar = np.eye(4)
    base_from_lidar[2, 3] = lidar_height
    with BagWriter(path, "mcap", compress=True) as bag:
        writer = DriveWriter(bag, (TF_STATIC, TF, IMAGE, CAMERA_INFO, POINTS, GROUND_TRUTH))
        for number, (made, tracks) in enumerate(rows):
            frame = made.frame
            if number == 0:
                links = [(BASE_FRAME, LIDAR_FRAME, base_from_lidar), camera_link(frame)]
                writer.transforms(TF_STATIC, links, frame.stamp)
            world_from_base = made.world_from_lidar @ np.linalg.inv(base_from_lidar)
            writer.transforms(TF, [(WORLD_FRAME, BASE_FRAME, world_from_base)], frame.stamp)
            writer.frame(frame, tracks, CLASSES)
            note(made, tracks)


def write_layout(
    kind: str,
    root: Path,
    sequences: Sequence[tuple[str, Callable[[], Iterator[_Row]]]],
    note: Callable[[SyntheticFrame, Tracks], None],
) -> Iterator[str]:
    """Write all sequences as `kins`, `asd` or `kitti`; yields after each frame.

    What these formats have no place for lies beside them in `exact/`: dense depth (uint16 PNG,
    metres * 256), the instance of every LiDAR point (uint32, the id) and the poses of the LiDAR.

    Raises:
        InputError: the folder is not empty.
    """
    poses: list[str] = []
    made_of: dict[int, SyntheticFrame] = {}

    def samples() -> Iterator[Sample]:
        number = 0
        for name, rows in sequences:
            for index, (made, tracks) in enumerate(rows()):
                made_of[number] = made
                note(made, tracks)
                video = f"{name}/front" if kind == "asd" else name
                yield Sample(made.frame, tracks, f"{name}/{index:06d}", video, index)
                number += 1

    writers = {
        "kins": kins.write,
        "asd": amodal_synth_drive_write.write,
        "kitti": kitti_write.write,
    }
    for number, stem in enumerate(writers[kind](root, samples(), CLASSES)):
        made = made_of.pop(number)
        folder = root / "exact"
        png = cv2.imencode(".png", made.depth, [cv2.IMWRITE_PNG_COMPRESSION, 4])[1].tobytes()
        write_bytes(folder / "depth" / f"{number:06d}.png", png)
        write_bytes(
            folder / "point_instances" / f"{number:06d}.bin", made.point_ids.astype("<u4").tobytes()
        )
        line = " ".join(f"{v:.9g}" for v in made.world_from_lidar[:3].reshape(-1))
        poses.append(f"{stem} {line}\n")
        yield stem
    write_bytes(root / "exact" / "poses.txt", "".join(poses).encode())
