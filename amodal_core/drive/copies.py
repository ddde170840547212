"""What a viewer needs beside the results: the sensors as the model had them, and transforms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from amodal_core.bags.factory import MessageFactory, RosbagsFactory
from amodal_core.bags.reader import BagReader
from amodal_core.bags.sensors import (
    camera_info_message,
    header_message,
    points_message,
    stamp_of,
    transform_message,
)
from amodal_core.bags.writer import BagWriter
from amodal_core.drive.assembler import DriveFrame
from amodal_core.drive.outputs import Output
from amodal_core.drive.topics import (
    COPIED_IMAGE,
    COPIED_INFO,
    COPIED_POINTS,
    TF,
    TF_STATIC,
)
from amodal_core.drive.transforms import TransformTree
from amodal_core.errors import InputError

_JPEG = 95  # quality


def sensor_outputs(factory: MessageFactory, item: DriveFrame) -> list[Output]:
    """A frame's image (rectified, as JPEG), its camera_info and its scan, as far as it has them."""
    frame, stamp, outputs = item.frame, item.frame.stamp, list[Output]()
    if frame.image is not None:
        done, jpeg = cv2.imencode(".jpg", frame.image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, _JPEG))
        assert done
        image = factory.create(
            COPIED_IMAGE.type,
            header=header_message(factory, stamp, item.frame_id),
            format="rgb8; jpeg compressed bgr8",
            data=jpeg.reshape(-1),
        )
        outputs.append((COPIED_IMAGE, image))
    camera = frame.calibration
    if camera is not None:
        size = camera.width, camera.height
        info = camera_info_message(factory, camera.K, *size, stamp, item.frame_id)
        outputs.append((COPIED_INFO, info))
    if frame.points is not None:
        # It was moved to the image's time where that is possible; a viewer shows them together.
        cloud = points_message(factory, frame.points, stamp, item.lidar_frame)
        outputs.append((COPIED_POINTS, cloud))
    return outputs


class TransformCopy:
    """Copies a drive's transforms, those that move up to a frame's time.

    Where they do not lead from the LiDAR to a camera (the extrinsics came from elsewhere), the
    frames' own calibration does.

    Args:
        path: the bag.
        out: is written to; /tf_static and /tf are announced.
    """

    def __init__(self, path: str | Path, out: BagWriter) -> None:
        self._out, self._factory = out, RosbagsFactory()
        self._tree = TransformTree()
        self._static: dict[str, Any] = {}  # by child
        self._bag = BagReader(path)
        topics = [t for t in self._bag.topics.values() if t.type == TF.type and t.count]
        for _, _, message in self._bag.messages([t.name for t in topics if t.latched]):
            self._add(message, static=True)
            for transform in message.transforms:
                self._static.setdefault(transform.child_frame_id, transform)
        self._moving: Iterator[Any] = self._bag.messages([t.name for t in topics if not t.latched])
        self._ahead: Any = next(self._moving, None)
        self._linked: set[tuple[str, str]] = set()
        for topic in (TF_STATIC, TF):
            latched = topic is TF_STATIC
            out.add_topic(topic.name, topic.type, latched=latched)

    def frame(self, item: DriveFrame) -> None:
        """Copy what moves up to a frame's stamp; before the first one, what stands still."""
        stamp = item.frame.stamp
        while self._ahead is not None:
            message = self._ahead.message
            times = [stamp_of(t.header) for t in message.transforms]
            if times and max(times) > stamp:
                break
            if times:
                self._add(message, static=False)
                self._out.write(TF.name, message, max(times))
            self._ahead = next(self._moving, None)
        self._stand_still(item, stamp)

    def _stand_still(self, item: DriveFrame, stamp: int) -> None:
        link = item.lidar_frame, item.frame_id
        if link in self._linked:
            return
        calibration = item.frame.calibration
        known = not all(link) or calibration is None or self._tree.connected(*link)
        if not known and calibration is not None:
            lidar_from_camera = np.linalg.inv(calibration.camera_from_lidar)
            made = transform_message(self._factory, *link, lidar_from_camera, stamp)
            self._static[item.frame_id] = made
        if not self._linked or not known:
            transforms: Sequence[Any] = list(self._static.values())
            message = self._factory.create(TF_STATIC.type, transforms=transforms)
            self._out.write(TF_STATIC.name, message, stamp)
        self._linked.add(link)

    def _add(self, message: Any, *, static: bool) -> None:
        with suppress(InputError):  # the drive says so, where it is needed
            self._tree.add(message, static=static)

    def close(self) -> None:
        """Close the bag."""
        self._bag.close()

    def __enter__(self) -> TransformCopy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
