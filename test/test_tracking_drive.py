"""The real drive: the two vehicles that are in view all the time are one track each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amodal_core.datasets.kitti import KittiRaw
from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.models.geometric import Geometric
from amodal_core.pipeline import Pipeline

ESTATE = [(0, (550, 185, 705, 322)), (18, (548, 188, 720, 345)), (35, (540, 190, 755, 375))]
LORRY = [(0, (340, 146, 520, 270)), (18, (190, 130, 490, 305)), (35, (10, 110, 455, 375))]
"""Frames and boxes, read off the images by eye: the grey estate straight ahead, the red lorry."""


@pytest.fixture(scope="module")
def drive(kitti_raw_drive: Path) -> list[Tracks]:
    pipeline = Pipeline(Geometric())
    return [pipeline.run(sample.frame).tracks for sample in KittiRaw(kitti_raw_drive)]


def best(tracks: Tracks, box: tuple[int, int, int, int]) -> tuple[int, float]:
    truth = RleMasks.from_boxes(np.array([box]), tracks.size)
    overlap = RleMasks.from_boxes(np.asarray(tracks.amodal_boxes), tracks.size).iou(truth)[:, 0]
    return int(tracks.ids[overlap.argmax()]), float(overlap.max())


@pytest.mark.parametrize("places", [ESTATE, LORRY], ids=["grey estate", "red lorry"])
def test_a_vehicle_in_view_throughout_has_one_id_and_is_seen_in_every_frame(
    drive: list[Tracks], places: list
) -> None:
    matches = [best(drive[k], box) for k, box in places]
    assert len({i for i, _ in matches}) == 1
    assert min(overlap for _, overlap in matches) > 0.6
    identity = matches[0][0]
    for tracks in drive:
        at = np.flatnonzero(tracks.ids == identity)
        assert len(at) == 1
        assert not tracks.coasted[at[0]]


def test_tracks_are_few_and_do_not_flicker(drive: list[Tracks]) -> None:
    frames: dict[int, list[int]] = {}
    for k, tracks in enumerate(drive):
        for i in tracks.ids.tolist():
            frames.setdefault(i, []).append(k)
    assert len(frames) <= 20
    for frames_of in frames.values():
        assert frames_of == list(range(frames_of[0], frames_of[-1] + 1))
    short = [
        i
        for i, frames_of in frames.items()
        if len(frames_of) < 4 and frames_of[-1] < len(drive) - 1
    ]
    assert len(short) <= 2
