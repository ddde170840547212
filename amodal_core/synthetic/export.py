"""Finished sequences to bags and data set layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from amodal_core.bags import kitti as kitti_bag
from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.messages import instances_message
from amodal_core.bags.sensors import (
    camera_info_message,
    image_message,
    points_message,
    transform_message,
)
from amodal_core.bags.writer import BagWriter
from amodal_core.datasets import amodal_synth_drive_write, kins, kitti_write
from amodal_core.datasets.image_files import write_bytes
from amodal_core.frame import Sample, Tracks
from amodal_core.synthetic.frames import SyntheticFrame
from amodal_core.synthetic.truth import CLASSES, Annotator

GROUND_TRUTH = "/ground_truth"
FORMATS = ("bag", "kins", "asd", "kitti")
_Row = tuple[SyntheticFrame, Tracks]


def with_tracks(frames: Iterable[SyntheticFrame]) -> Iterator[_Row]:
    """Each frame of one sequence with its annotated objects."""
    annotator = Annotator()
    for made in frames:
        yield made, annotator.tracks(made.truth)


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
    factory = RosbagsFactory()
    base_from_lidar = np.eye(4)
    base_from_lidar[2, 3] = lidar_height
    with BagWriter(path, "mcap", compress=True) as bag:
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        bag.add_topic("/tf", "tf2_msgs/msg/TFMessage")
        bag.add_topic(kitti_bag.IMAGE, "sensor_msgs/msg/Image")
        bag.add_topic(kitti_bag.CAMERA_INFO, "sensor_msgs/msg/CameraInfo")
        bag.add_topic(kitti_bag.POINTS, "sensor_msgs/msg/PointCloud2")
        bag.add_topic(GROUND_TRUTH, "amodal_msgs/msg/AmodalInstanceArray")
        for number, (made, tracks) in enumerate(rows):
            frame, stamp = made.frame, made.frame.stamp
            camera = frame.calibration
            assert camera is not None
            assert frame.image is not None
            assert frame.points is not None
            if number == 0:
                links = [
                    (kitti_bag.BASE_FRAME, kitti_bag.LIDAR_FRAME, base_from_lidar),
                    (
                        kitti_bag.LIDAR_FRAME,
                        kitti_bag.CAMERA_FRAME,
                        np.linalg.inv(camera.camera_from_lidar),
                    ),
                ]
                static = [transform_message(factory, p, c, m, stamp) for p, c, m in links]
                bag.write(
                    "/tf_static", factory.create("tf2_msgs/msg/TFMessage", transforms=static), stamp
                )
            world_from_base = made.world_from_lidar @ np.linalg.inv(base_from_lidar)
            moved = transform_message(
                factory, kitti_bag.WORLD_FRAME, kitti_bag.BASE_FRAME, world_from_base, stamp
            )
            bag.write("/tf", factory.create("tf2_msgs/msg/TFMessage", transforms=[moved]), stamp)
            bag.write(
                kitti_bag.IMAGE,
                image_message(factory, frame.image, stamp, kitti_bag.CAMERA_FRAME),
                stamp,
            )
            info = camera_info_message(
                factory, camera.K, camera.width, camera.height, stamp, kitti_bag.CAMERA_FRAME
            )
            bag.write(kitti_bag.CAMERA_INFO, info, stamp)
            bag.write(
                kitti_bag.POINTS,
                points_message(factory, frame.points, stamp, kitti_bag.LIDAR_FRAME),
                stamp,
            )
            message = instances_message(
                factory, tracks, stamp=stamp, frame_id=kitti_bag.CAMERA_FRAME, classes=CLASSES
            )
            bag.write(GROUND_TRUTH, message, stamp)
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
    poses: dict[str, list[str]] = {}
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
        poses.setdefault("all", []).append(f"{stem} {line}")
        yield stem
    write_bytes(root / "exact" / "poses.txt", ("\n".join(poses.get("all", [])) + "\n").encode())
