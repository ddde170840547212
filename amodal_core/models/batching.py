"""One model for several streams: frames that wait together go through it together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from amodal_core.frame import Frame, Instances, Report
from amodal_core.models.base import Model


class _Request:
    """Frames of one stream that wait for their instances."""

    def __init__(self, frames: Sequence[Frame], report: Report) -> None:
        self.frames, self.report = list(frames), report
        self.instances: list[Instances] | None = None
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        """Whether there is an answer."""
        return self.instances is not None or self.error is not None


def _shape(request: _Request) -> set[tuple[Any, ...]]:
    """Sizes of the frames, and which parts they have: a batch's are alike."""
    parts = ("image", "points", "depth", "calibration")
    return {(f.size, *(getattr(f, part) is None for part in parts)) for f in request.frames}


class BatchedModel:
    """A model that streams share, each from its own thread.

    While one call runs, others gather: the next call takes all that came meanwhile. So a stream by
    itself never waits for another's frame, and the fuller the machine, the larger the batches.

    Args:
        model: keeps nothing of a stream (`remembers` is not set).
        most: frames of one call at most; 1 gives to the last bit what the model gives alone, which
            rounds the sums of a batch otherwise.
    """

    def __init__(self, model: Model, most: int) -> None:
        self.model, self.most = model, most
        self.name, self.inputs, self.classes = model.name, model.inputs, model.classes
        self.optional: frozenset[str] = getattr(model, "optional", frozenset())
        self._changed = threading.Condition()
        self._waiting: list[_Request] = []
        self._busy = False

    def reset(self) -> None:
        """Nothing: no stream leaves anything behind."""

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        """The instances of each frame, as the model gives them."""
        request = _Request(frames, report if report is not None else Report())
        with self._changed:
            self._waiting.append(request)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: request.done or not self._busy)
                if request.done:
                    break
                self._busy = True
                batch = self._next()
            try:
                self._run(batch)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
        if request.error is not None:
            raise request.error
        assert request.instances is not None
        return request.instances

    def _next(self) -> list[_Request]:
        """The oldest request, and those that fit into a call with it."""
        batch = [self._waiting.pop(0)]
        for request in list(self._waiting):
            count = sum(len(r.frames) for r in (*batch, request))
            if count <= self.most and _shape(request) == _shape(batch[0]):
                batch.append(request)
                self._waiting.remove(request)
        return batch

    def _run(self, batch: list[_Request]) -> None:
        report = Report()
        try:
            results = self.model.infer([f for r in batch for f in r.frames], report)
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            # Only the frame that the model cannot take costs its stream something.
            for request in batch:
                self._run([request])
            return
        for request in batch:
            request.instances, results = (
                results[: len(request.frames)],
                results[len(request.frames) :],
            )
            request.report.merge([report])
