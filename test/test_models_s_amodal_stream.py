"""S-AModal over a stream: its detector, and hidden objects that it remembers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moving_scenes import Scene
from s_amodal_scenes import TINY, made
from training_scenes import CLASSES, street

from amodal_core.errors import InputError
from amodal_core.frame import Tracks
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.s_amodal import SAModal, SAModalConfig


def test_without_a_detector_only_given_masks_are_completed():
    alone = made().eval()
    assert alone.inputs == {"image"}
    assert alone.classes == CLASSES
    with pytest.raises(InputError, match="s_amodal has no detector"):
        alone.infer([street(1).frame])


def test_the_detectors_best_sure_and_finite_instances_are_completed():
    samples = Scene().samples(1)
    model = streaming(samples, min_score=0.3, max_instances=1)
    seer = model.detector
    (seen,) = seer.infer([samples[0].frame])
    twice = seen[np.array([0, 1, 1])]
    twice.scores[:] = 0.2, 0.9, 0.95
    twice.amodal_boxes[2] = np.nan
    seer.truth[samples[0].frame.stamp] = twice
    (found,) = model.infer([samples[0].frame])
    assert found.visible.counts == twice.visible.counts[1:2]
    twice.scores[0] = 0.4
    (found,) = model.infer([samples[0].frame])
    assert found.visible.counts == twice.visible.counts[1:2]


class Seer:
    """A detector that sees what shows of a scene, without identities."""

    name, inputs, classes = "seer", frozenset({"image"}), ("car", "truck")

    def __init__(self, samples):
        self.truth = {s.frame.stamp: s.truth[s.truth.visible.areas() > 0] for s in samples}

    def infer(self, frames, report=None):
        return [self.truth[f.stamp] for f in frames]

    def reset(self):
        pass


def streaming(samples, **settings):
    model = SAModal(SAModalConfig(("car", "truck"), **TINY, **settings))
    model.eval()
    model.sam.mask_decoder.iou_prediction_head.proj_out.bias.data.fill_(0.7)
    # Masks that are what shows: the scene is about memory, not about drawing.
    model.ask = lambda e, p, size: (torch.full((len(p), *size), -1.0), torch.full((len(p),), 0.7))
    model._detector = (Seer(samples),)
    return model


def test_live_hidden_objects_are_remembered_and_a_reset_forgets_them():
    samples = Scene().samples(20)
    frames = [s.frame for s in samples]
    one, many = streaming(samples), streaming(samples)
    alone = [one.infer([f])[0] for f in frames]
    together = many.infer(frames[:7]) + many.infer(frames[7:])
    for a, b in zip(alone, together, strict=True):
        assert a.amodal.counts == b.amodal.counts
    hidden = [s.index for s in samples if s.truth.visible.areas()[0] == 0]
    assert hidden == [18, 19]
    assert [len(r) for r in alone] == [2] * 20
    assert alone[19].visible.areas().tolist()[1] == 0
    assert alone[19].occluders.tolist() == [[False, False], [True, False]]
    one.reset()
    assert len(one.infer([frames[19]])[0]) == 1
    assert len(streaming(samples, seconds=0.0).infer(frames)[19]) == 1


def test_given_tracks_are_followed_through_an_occlusion():
    samples = Scene().samples(20)
    model = streaming(samples)
    frames, truths = [s.frame for s in samples], [s.truth for s in samples]
    for sample, tracks in zip(samples, model.complete(frames, truths), strict=True):
        assert isinstance(tracks, Tracks)
        assert sorted(tracks.ids.tolist()) == [0, 1]
        assert tracks.coasted.any() == (sample.truth.visible.areas()[0] == 0)
    # A clip stands alone: what came before is not remembered, and nothing is left of it.
    (alone,) = model.complete(frames[19:], truths[19:])
    assert alone.ids.tolist() == [1]
    assert len(model.infer(frames[19:])[0]) == 1
    assert model.complete([], []) == []


def test_a_checkpoint_may_carry_hidden_objects_without_limit(tmp_path):
    endless = made(seconds=float("inf"))
    info = CheckpointInfo("s_amodal", endless.config_json(), ("car",))
    save_checkpoint(tmp_path / "x.safetensors", endless, info)
    again = SAModal.from_checkpoint(str(tmp_path / "x.safetensors"), detector="")
    assert again.memory._carrier.seconds == float("inf")
