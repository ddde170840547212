"""One model for several streams: what waits together goes together, and each gets its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from amodal_core.errors import InputError
from amodal_core.frame import Frame, Instances, Report
from amodal_core.models.batching import BatchedModel
from amodal_core.models.registry import create


class Counting:
    """Gives each frame as many objects as its stamp says; the first call waits for the gate."""

    name, inputs, classes = "counting", frozenset({"image"}), ("car",)

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.begun, self.gate = threading.Event(), threading.Event()

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        self.calls.append([f.stamp for f in frames])
        self.begun.set()
        assert self.gate.wait(60)
        if any(f.stamp == 13 for f in frames):
            raise InputError("13 is refused")
        assert report is not None
        report.warn("counted", f"{len(frames)} frames")
        return [sample(f) for f in frames]

    def reset(self) -> None:
        raise AssertionError("a stream that begins anew is nothing to the others")


def sample(frame: Frame) -> Instances:
    return Instances.empty(frame.size)[np.zeros(0, int)]


def frame(stamp: int, width: int = 8) -> Frame:
    return Frame(stamp, np.zeros((4, width, 3), np.uint8))


def batches(most: int, *waiting: Frame) -> tuple[list[list[int]], list[object]]:
    """The calls that frames bring about that come while the model works on stamp 0; outcomes."""
    model = Counting()
    shared = BatchedModel(model, most)

    def ask(one: Frame) -> object:
        try:
            return shared.infer([one], Report())[0].size
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(len(waiting) + 1) as pool:
        first = pool.submit(ask, frame(0))
        assert model.begun.wait(60)
        others = []
        for one in waiting:
            others.append(pool.submit(ask, one))
            while len(shared._waiting) < len(others):
                pass
        model.gate.set()
        return model.calls, [first.result(60), *(o.result(60) for o in others)]


def test_frames_that_wait_together_go_through_the_model_together() -> None:
    calls, sizes = batches(8, frame(1), frame(2), frame(3))
    assert calls == [[0], [1, 2, 3]]
    assert sizes == [(4, 8)] * 4


def test_no_more_than_the_most_go_together_and_one_goes_alone() -> None:
    assert batches(2, frame(1), frame(2), frame(3))[0] == [[0], [1, 2], [3]]
    assert batches(1, frame(1), frame(2))[0] == [[0], [1], [2]]


def test_frames_of_another_size_wait_for_the_next_call_and_get_their_own() -> None:
    calls, sizes = batches(8, frame(1), frame(2, 16), frame(3))
    assert calls == [[0], [1, 3], [2]]
    assert sizes == [(4, 8), (4, 8), (4, 16), (4, 8)]


def test_a_frame_that_the_model_refuses_costs_the_others_nothing() -> None:
    calls, results = batches(8, frame(1), frame(13), frame(3))
    assert calls == [[0], [1, 13, 3], [1], [13], [3]]
    assert results == [(4, 8), (4, 8), "13 is refused", (4, 8)]


@pytest.mark.parametrize("name", ["geometric", "flagship"])
def test_models_of_single_frames_may_be_shared(name: str) -> None:
    assert not getattr(create(name), "remembers", False)
