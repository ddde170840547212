"""Instances and tracks: what does not fit together is never made."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from amodal_core.frame import Instances, Tracks
from amodal_core.masks.mask_set import RleMasks

SIZE, N = (6, 8), 3


def tracks(**changes):
    masks = RleMasks.from_boxes(np.array([[0, 0, 2, 2]] * N), SIZE)
    boxes, floats, ids = np.zeros((N, 4), np.float32), np.zeros(N, np.float32), np.arange(N)
    values = {
        "size": SIZE, "amodal_boxes": boxes, "visible_boxes": boxes, "scores": floats,
        "class_ids": ids, "amodal": masks, "visible": masks, "occlusion_rates": floats,
        "depths": floats, "occluders": np.zeros((N, N), bool),
        "embeddings": np.zeros((N, 5), np.float32), "boxes3d": np.zeros((N, 7), np.float32),
        "class_probabilities": np.eye(N, dtype=np.float32),
        "velocities": np.zeros((N, 3), np.float32),
        "image_velocities": np.zeros((N, 2), np.float32),
        "ignore": np.zeros(N, bool), "ids": ids, "ages": ids, "coasted": np.zeros(N, bool),
    }  # fmt: skip
    return Tracks(**(values | changes))


NAMES = [f.name for f in fields(Tracks) if f.name not in ("size", "scores")]


@pytest.mark.parametrize("name", NAMES)
def test_a_field_of_another_length_is_named(name):
    whole = tracks()
    with pytest.raises(ValueError, match=f"^{name}: .*wanted"):
        replace(whole, **{name: getattr(whole, name)[:2]})


def test_three_scores_for_five_boxes_are_refused():
    five = {name: getattr(tracks(), name)[[0, 1, 2, 0, 1]] for name in ("amodal", "visible")}
    with pytest.raises(ValueError, match=r"^amodal: 5 of"):
        tracks(**five)
    with pytest.raises(ValueError, match=r"^amodal_boxes: .*\(5, 4\), wanted float .*\(3, 4\)"):
        tracks(amodal_boxes=np.zeros((5, 4), np.float32))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("amodal_boxes", np.zeros((N, 4), np.int64)),
        ("scores", np.ones((N, 1), np.float32)),
        ("class_ids", np.zeros(N, np.float32)),
        ("class_ids", [0, 1, 2]),
        ("occluders", np.zeros((N, N))),
        ("occluders", np.zeros((N, N + 1), bool)),
        ("embeddings", np.zeros(N, np.float32)),
        ("boxes3d", np.zeros((N, 6), np.float32)),
        ("coasted", np.zeros(N, np.int64)),
        ("scores", torch.ones(N, dtype=torch.int64)),
        ("class_ids", torch.zeros(N, dtype=torch.bool)),
        ("visible", RleMasks.empty((5, 8), N)),
    ],
)
def test_a_field_of_another_shape_or_kind_is_named(name, wrong):
    with pytest.raises(ValueError, match=f"^{name}: .*wanted"):
        tracks(**{name: wrong})


def test_tensors_of_any_precision_fit_and_so_does_every_selection():
    half = torch.zeros(N, dtype=torch.bfloat16)
    on_device = tracks(
        scores=half, amodal_boxes=torch.zeros(N, 4), class_ids=torch.zeros(N, dtype=torch.int32)
    )
    assert len(on_device) == N
    whole = tracks()
    for index in ([], [2, 0], slice(1, 3), np.array([True, False, True])):
        assert len(whole[index]) == len(np.arange(N)[index])
    assert len(Instances.empty(SIZE)) == len(Tracks.empty(SIZE)) == 0


def test_what_is_on_the_host_stays_as_it_is_and_the_rest_comes_to_it():
    whole = tracks()
    assert whole.numpy() is whole
    tensors = replace(whole, scores=torch.ones(N))
    host = tensors.numpy()
    assert isinstance(host.scores, np.ndarray)
    assert host.ids is whole.ids
