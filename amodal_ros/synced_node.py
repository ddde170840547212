"""The base of nodes whose frames are assembled from several topics, as a bag's are."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Any

from amodal_core.drive.assembler import (
    Assembler,
    DriveFrame,
    Intake,
    Moment,
)
from amodal_core.drive.calibrations import UncalibratedError
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.topics import Topic
from amodal_ros.conversions import read_image
from amodal_ros.declarations import Parameter, parameters_of
from amodal_ros.frame_node import FrameNode

SENSORS: tuple[Parameter, ...] = parameters_of(DriveSettings)


class SyncedNode(FrameNode):
    """A node that works on frames; a subclass names the topics that make one."""

    calibrated: bool = False  # whether its frames have a calibration

    def __init__(self, **kwargs: Any) -> None:
        self._arrived = 0.0
        self._settled = 0.0  # when the last message before the tick before had come
        super().__init__(**kwargs)

    @abstractmethod
    def frame_topics(self) -> tuple[str, ...]:
        """The topics of a frame, the one that gives it its stamp first."""

    def optional_topics(self) -> tuple[str, ...]:
        """Those of the frame's topics that it may lack."""
        return ()

    def configure(self) -> None:
        """Set up the assembler; subclasses call this when they know their topics."""
        self._assembler = Assembler(
            self.frame_topics(),
            self.settings(DriveSettings),
            calibrated=self.calibrated,
            optional=self.optional_topics(),
            label=self.topic_name,
            images=read_image,
        )

    def on_message(self, topic: Topic, stamp: int, message: Any) -> None:
        """Bring messages together; what makes a frame goes to the worker."""
        self._arrived = time.monotonic()
        self._submit(self._assembler.take(topic.name, message))

    def tick(self) -> None:
        """Let the stream's time pass, so that messages without partners are given up.

        Only once nothing has come since the tick before: on a busy machine partners wait to be
        taken in while the clock runs ahead, and while messages come their stamps tell the time.
        """
        assembler = getattr(self, "_assembler", None)
        if assembler is None or assembler.newest is None:
            return
        if self._arrived != self._settled:
            self._settled = self._arrived
            return
        if self.get_parameter("use_sim_time").value:
            # Where the player is held, time stands: nothing is late.
            now = self.get_clock().now().nanoseconds
        else:
            now = assembler.newest + round((time.monotonic() - self._arrived) * 1e9)
        self._submit(assembler.advance(now))

    def read(self, moment: Moment) -> DriveFrame:
        """The frame of a moment, in the worker's thread; see `Assembler.read`."""
        try:
            made = self._assembler.read(moment, wait=not self.ending)
        except UncalibratedError as error:
            self.health.condition("calibration", str(error))
            raise
        self.health.condition("calibration", "")
        self.warn_all(made.warnings)
        return made

    def _submit(self, intake: Intake) -> None:
        for drop in intake.drops:
            # Other topics may be faster than the reference: only its losses are frames.
            if drop.topic == self._assembler.reference:
                self.drop(drop.reason, f"frame {drop.stamp * 1e-9:.3f} dropped: {drop.reason}")
        for moment in intake.moments:
            if moment.reset:
                self.submit_reset()
            self.submit(moment.stamp, moment)
