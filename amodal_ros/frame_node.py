"""The base of nodes that work on frames, one after the other, in a thread of their own."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from amodal_core.drive.topics import Topic
from amodal_core.errors import InputError
from amodal_ros.base_node import BaseNode, seconds
from amodal_ros.exchange import Exchange
from amodal_ros.worker import Worker


class FrameNode(BaseNode, ABC):
    """A node that says what it does with a message (`on_message`) and with a frame (`process`).

    Args:
        exchange: of the nodes of this process; None for a node by itself.
        **kwargs: of rclpy's Node.
    """

    def __init__(self, exchange: Exchange | None = None, **kwargs: Any) -> None:
        self._worker: Worker[tuple[int, Any]] | None = None
        super().__init__(exchange, **kwargs)

    @abstractmethod
    def on_message(self, topic: Topic, stamp: int, message: Any) -> None:
        """See `BaseNode.on_message`: gather, then `submit` a frame."""

    @abstractmethod
    def process(self, stamp: int, item: Any) -> None:
        """Work on a submitted frame, in the worker's thread."""

    def reset_state(self) -> None:
        """Time jumped back: forget what earlier frames left behind, in the worker's thread."""

    def submit(self, stamp: int, item: Any) -> None:
        """Queue a frame for the worker."""
        if self._worker is not None:
            self._worker.put((stamp, item))

    def submit_reset(self) -> None:
        """Have the state reset, after the frames before and before the frames after."""
        self.get_logger().info("time jumped back: the state of the stream is reset")
        if self._worker is not None:
            self._worker.call(self.reset_state)

    def _begin(self) -> None:
        self._worker = Worker(self._work, self._overrun, self._caught, size=self.value("queue"))

    def _stop(self, *, finish: bool = False) -> None:
        super()._stop(finish=finish)
        if self._worker is not None and self._worker.stop(finish=finish):
            self._worker = None

    def _work(self, item: tuple[int, Any]) -> None:
        stamp, frame = item
        begin = time.perf_counter()
        try:
            self.process(stamp, frame)
        except InputError as error:
            self.health.dropped(f"refused {error.where}".strip())
            self.error(f"refuse {error.where}", f"frame {seconds(stamp)} refused: {error}")
            return
        self.failing = 0
        self.health.processed(stamp, (time.perf_counter() - begin) * 1e3)

    def _overrun(self, item: tuple[int, Any]) -> None:
        self.drop("overload", f"overload: frame {seconds(item[0])} gives way to a newer one")
