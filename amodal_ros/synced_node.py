"""The base of nodes whose frames come from several topics: synchroniser, calibration, TF."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from typing import Any

import numpy as np

from amodal_core.bags.sensors import read_camera_info
from amodal_core.errors import InputError
from amodal_core.frame import Calibration
from amodal_core.sync import MatchedSet, SyncConfig, Synchronizer, SyncResult
from amodal_ros.base_node import BaseNode
from amodal_ros.declarations import Parameter, Topic
from amodal_ros.topics import CAMERA_INFO, POINTS, TF, TF_STATIC
from amodal_ros.transforms import TransformListener
from amodal_ros.validation import check_frame_id, check_stamp, extrinsics

CALIBRATED: tuple[Parameter, ...] = (
    Parameter(
        "extrinsics",
        [0.0] * 7,
        "camera_from_lidar as x, y, z (metres) and quaternion x, y, z, w, in place of the "
        "transform tree; seven zeros use the transform tree.",
        lengths=(7,),
    ),
    Parameter(
        "transform_timeout",
        2.0,
        "Seconds to wait for a transform or camera_info that has not come yet.",
        low=0.0,
        high=60.0,
    ),
)
_INFOS = 64  # calibrations kept for images that are still on their way


class SyncedNode(BaseNode):
    """A node that works on frames; a subclass names the topics that make one."""

    def __init__(self, **kwargs: Any) -> None:
        self.transforms = TransformListener()
        self._sync: Synchronizer | None = None
        self._reference = ""
        self._newest = 0
        self._newest_at = 0.0
        self._infos: dict[int, Any] = {}
        self._infos_changed = threading.Condition()
        self._extrinsics: np.ndarray | None = None
        self._waited_in_vain = False
        super().__init__(**kwargs)

    @abstractmethod
    def frame_topics(self) -> tuple[str, ...]:
        """The topics of a frame, the one that gives it its stamp first."""

    def configure(self) -> None:
        """Set up the synchroniser; subclasses call this when they know their topics."""
        if "extrinsics" in self._by_name:
            self._extrinsics = extrinsics(self.value("extrinsics"))
        topics = self.frame_topics()
        self._reference = topics[0]
        self._sync = None
        if len(topics) > 1:
            # Depth images and instances have exactly the image's stamp; only scans differ from it.
            points = POINTS.name in topics
            offset = round(self.value("points_offset") * 1e9) if points else 0
            self._sync = Synchronizer(
                SyncConfig(
                    topics,
                    slop_ns=round(self.value("sync_slop") * 1e9) if points else 0,
                    offsets_ns={POINTS.name: offset} if points else {},
                    queue_size=256,
                    timeout_ns=round(self.value("sync_timeout") * 1e9),
                )
            )

    def on_message(self, topic: Topic, stamp: int, message: Any) -> None:
        """Bring messages together; frames go to the worker."""
        if topic.name == TF_STATIC.name:
            self.transforms.add_static(message)
            return
        if topic.name == TF.name:
            self.transforms.add(message)
            return
        check_stamp(stamp, self.topic_name(topic.name))
        if topic.name == CAMERA_INFO.name:
            with self._infos_changed:
                self._infos[stamp] = message
                if len(self._infos) > _INFOS:
                    del self._infos[next(iter(self._infos))]
                self._infos_changed.notify_all()
        if topic.name not in self.frame_topics():
            return
        if self._sync is not None:
            self._take(self._sync.push(topic.name, stamp, message))
        else:
            if stamp < self._newest:
                self.submit_reset()
            self.submit(stamp, MatchedSet(stamp, {topic.name: stamp}, {topic.name: message}))
        self._newest, self._newest_at = stamp, time.monotonic()

    def tick(self) -> None:
        """Let the stream's time pass, so that messages without partners are given up."""
        if self._sync is None or not self._newest:
            return
        if self.get_parameter("use_sim_time").value:
            # Where the player is held, time stands: nothing is late.
            now = self.get_clock().now().nanoseconds
        else:
            now = self._newest + round((time.monotonic() - self._newest_at) * 1e9)
        # After a jump back the clock may still be the old one; the next message brings it along.
        if now - self._newest < 60_000_000_000:
            self._take(self._sync.advance(now))

    def calibration(self, stamp: int, image: str, lidar: str) -> Calibration:
        """The calibration of a frame, waiting a little for what has not come yet.

        Args:
            stamp: the image's, nanoseconds.
            image: the frame of the image, "" to use camera_info's.
            lidar: the frame of the points.

        Raises:
            InputError: no camera_info, no transform, or one that is malformed.
        """
        info = self.camera_info(stamp)
        camera = image.lstrip("/") or check_frame_id(
            info.header.frame_id, self.topic_name(CAMERA_INFO.name)
        )
        placed = self._extrinsics
        if placed is None:
            lidar = check_frame_id(lidar, self.topic_name(POINTS.name))
            try:
                placed = self.transforms.lookup(camera, lidar, self._patience())
            except InputError as error:
                self._waited_in_vain = True
                self.health.condition("transform", str(error))
                raise
            self._waited_in_vain = False
            self.health.condition("transform", "")
        return read_camera_info(info, placed, self.topic_name(CAMERA_INFO.name))

    def camera_info(self, stamp: int) -> Any:
        """The camera_info of a stamp, else the newest; InputError where none has ever come."""
        with self._infos_changed:
            self._infos_changed.wait_for(lambda: bool(self._infos), self._patience())
            if not self._infos:
                self._waited_in_vain = True
                raise InputError(
                    "no camera_info has come",
                    self.topic_name(CAMERA_INFO.name),
                    "remap camera_info to the camera's",
                )
            return self._infos.get(stamp) or next(reversed(self._infos.values()))

    def _patience(self) -> float:
        """Seconds to wait for what is missing: once, not again for every frame that needs it."""
        return 0.0 if self._waited_in_vain or self.ending else self.value("transform_timeout")

    def _take(self, result: SyncResult) -> None:
        if result.reset:
            self.transforms.reset()
            self.submit_reset()
        for drop in result.drops:
            # Other topics may be faster than the reference: only its losses are frames.
            if drop.topic == self._reference:
                self.drop(drop.reason, f"frame {drop.stamp * 1e-9:.3f} dropped: {drop.reason}")
        for matched in result.sets:
            self.submit(matched.stamp, matched)
