"""Videos of a data set to rosbag2 bags, named as in `amodal_core.drive.topics`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.messages import detection3d_message
from amodal_core.bags.sensors import header_message
from amodal_core.bags.writer import BagWriter
from amodal_core.datasets.base import DERIVED, Dataset, Rig
from amodal_core.datasets.registry import open_dataset
from amodal_core.drive.topics import (
    BASE_FRAME,
    CAMERA_FRAME,
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
from amodal_core.errors import InputError
from amodal_core.frame import Frame, Report, Tracks
from amodal_core.progress import Progress

LABELS = "/kitti/labels"  # 3D boxes, vision_msgs/Detection3DArray


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
    /tf_static where there are scans. Where the vehicle's motion is known, /tf has its pose at each
    image and scan. 3D boxes without masks are written as `LABELS`, each at its scan's time.

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
        first, rig = data.frame(indices[0]), data.rig(indices[0])
        lidar = first.calibration is not None and (first.points is not None or rig is not None)
        topics = {
            TF_STATIC: lidar,
            TF: rig is not None,
            IMAGE: True,
            CAMERA_INFO: first.calibration is not None,
            POINTS: first.points is not None or rig is not None,
            GROUND_TRUTH: rig is None or data.has_masks,
        }
        writer = DriveWriter(bag, [topic for topic, present in topics.items() if present])
        if data.derived:
            bag.remark("ground_truth", DERIVED)
        labels = rig is not None and not data.has_masks
        if labels:
            bag.add_topic(LABELS, "vision_msgs/msg/Detection3DArray")
        if lidar:
            writer.transforms(TF_STATIC, _links(first, rig), first.stamp)
        for turn, index in enumerate(indices):
            sample, rig = data[index], data.rig(index)
            truth, frame = None, sample.frame
            scan_stamp = frame.stamp if frame.points_stamp is None else frame.points_stamp
            if rig is not None:
                world_from_base = {scan_stamp: rig.world_from_base_at_scan}
                world_from_base[frame.stamp] = rig.world_from_base
                for stamp, pose in sorted(world_from_base.items()):
                    writer.transforms(TF, [(WORLD_FRAME, BASE_FRAME, pose)], stamp)
            if sample.truth is not None and data.has_masks:
                truth = sample.truth.numpy()
                ages = [turn - first_turns.setdefault(i, turn) + 1 for i in truth.ids.tolist()]
                truth = replace(truth, ages=np.array(ages, np.int64))
                if rig is not None:
                    truth = replace(truth, boxes3d=_at_image(truth, rig))
            elif labels and sample.truth is not None:
                message = _labels_of(writer.factory, sample.truth, data.classes, scan_stamp)
                bag.write(LABELS, message, scan_stamp)
            writer.frame(frame, truth, data.classes)
            yield sample.name


def convert_recorded(
    src: str | Path,
    out: str | Path,
    format: str,
    *,
    storage: str = "mcap",
    compress: bool = False,
    max_frames: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Write one recorded drive of nuScenes, Argoverse 2 or Waymo as a bag.

    Args:
        src: the data set.
        out: the bag's folder.
        format: "nuscenes", "av2" or "waymo".
        storage: "mcap" or "sqlite3".
        compress: zstd.
        max_frames: stop after so many images.
        progress: is called with (images done, images in all).
        **options: of the reader; they have to leave one drive.

    Returns:
        warnings about what the drive lacks.

    Raises:
        InputError: it cannot be read, holds several drives, or the bag cannot be written; no bag
            is left then.
    """
    data, report = open_dataset(src, format, **options), Report()
    if len(data.videos) != 1:
        some = ", ".join(data.videos[:3])
        one = {"nuscenes": "--scene", "av2": "--log", "waymo": "--segment"}[format]
        raise InputError(f"{len(data.videos)} drives", str(src), f"choose by {one}: {some} ...")
    count = len(data) if max_frames is None else min(max_frames, len(data))
    for done, _ in enumerate(
        write_video(
            data, data.videos[0], out, storage=storage, compress=compress, limit=max_frames
        ),
        1,
    ):
        if progress is not None:
            progress(done, count)
    if data.derived:
        report.warn("derived", f"{GROUND_TRUTH.bag_name}: {DERIVED}")
    return report


def _links(first: Frame, rig: Rig | None) -> list[tuple[str, str, np.ndarray]]:
    """The vehicle's sensors; LiDAR and camera alone where no vehicle is known."""
    if rig is None:
        return [camera_link(first)]
    return [
        (BASE_FRAME, LIDAR_FRAME, rig.base_from_lidar),
        (BASE_FRAME, CAMERA_FRAME, rig.base_from_camera),
    ]


def _at_image(truth: Tracks, rig: Rig) -> np.ndarray | None:
    """(N, 7) boxes of the scan's time in the LiDAR's frame at the image's, as points are moved."""
    if truth.boxes3d is None:
        return None
    image_from_scan = np.linalg.inv(rig.world_from_base @ rig.base_from_lidar)
    image_from_scan = image_from_scan @ rig.world_from_base_at_scan @ rig.base_from_lidar
    boxes = np.array(truth.boxes3d, np.float64)
    boxes[:, :3] = boxes[:, :3] @ image_from_scan[:3, :3].T + image_from_scan[:3, 3]
    boxes[:, 6] += np.arctan2(image_from_scan[1, 0], image_from_scan[0, 0])
    return boxes.astype(np.float32)


def _labels_of(factory: RosbagsFactory, truth: Tracks, classes: Sequence[str], stamp: int) -> Any:
    rows = np.zeros((0, 7), np.float32) if truth.boxes3d is None else np.asarray(truth.boxes3d)
    names = [classes[k] for k in truth.class_ids.tolist()]
    return labels_message(factory, names, np.ones(len(rows)), truth.ids, rows, stamp)


def labels_message(
    factory: RosbagsFactory,
    names: Sequence[str],
    scores: Sequence[float] | np.ndarray,
    ids: Sequence[int] | np.ndarray,
    boxes: np.ndarray,
    stamp: int,
) -> Any:
    """3D boxes as a Detection3DArray in the LiDAR frame.

    Args:
        factory: of messages.
        names: N classes.
        scores: (N,) 0-1.
        ids: (N,) identities, negative where there is none.
        boxes: (N, 7) as in Instances.boxes3d; rows that are not finite are left out.
        stamp: nanoseconds.
    """
    header = header_message(factory, stamp, LIDAR_FRAME)
    items = [
        detection3d_message(factory, header, row, [(name, float(score))], int(number))
        for name, score, number, row in zip(names, scores, ids, boxes, strict=True)
        if np.isfinite(row).all()
    ]
    return factory.create("vision_msgs/msg/Detection3DArray", header=header, detections=items)
