"""Heads of two-stage models give what the published code gives; see `record_two_stage.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from published_two_stage import (
    AISFORMER_LAYERS,
    CODEBOOK,
    HEAD_CASES,
    HEADS,
    SCORES,
    STEP,
    TRACKER_CASES,
    TRACKER_SEEDS,
    Rois,
    features,
    fill,
    masks,
    tracker_frames,
    vrsp_config,
)

from amodal_core import pickles
from amodal_core.errors import InputError
from amodal_core.frame import Instances
from amodal_core.masks.mask_set import RleMasks
from amodal_core.models.aisformer import AisFormerConfig, AisFormerHead
from amodal_core.models.vrsp import Vrsp
from amodal_core.settings import parse_rules
from amodal_core.tracking import make_tracker

RECORDED = np.load(HEADS)
KINDS = ("amodal", "visible")


def vrsp(name, **changes):
    """The model of a case with the recorded weights, its codebook filled as the original's."""
    case = HEAD_CASES[name]
    model = Vrsp(vrsp_config(case, **changes)).eval()
    fill(model)
    if model.config.prior_refinement:
        with torch.no_grad():
            latents = torch.cat([model.auto_encoder.encode(m.float()) for m in masks(28)]).numpy()
        model.codebook.fill({0: latents[:5], case.classes - 1: latents[5:]})
    model.roi_features = lambda *_: features()
    return model, torch.tensor(case.labels)


def recorded(name, value):
    return RECORDED[f"{name}/{value}"]


@pytest.mark.parametrize("which", ["coarse", "refined", "ensemble"])
@pytest.mark.parametrize("name", HEAD_CASES)
def test_masks_of_every_look_are_those_of_the_published_heads(name, which):
    model, labels = vrsp(name, masks=which)
    with torch.no_grad():
        logits = model.masks(None, [torch.zeros(len(labels), 4)], [labels], None)
    for kind, one in zip(KINDS, logits, strict=True):
        wanted = recorded(name, f"{which} {kind}")[:, 0]
        assert abs(one.sigmoid()[:, ::STEP, ::STEP].numpy() - wanted).max() < 2e-6


@pytest.mark.parametrize("name", HEAD_CASES)
def test_losses_are_those_of_the_published_code(name):
    model, labels = vrsp(name)
    losses = model.mask_losses(None, Rois(labels), None)
    terms = [k.rpartition("/")[2] for k in RECORDED.files if k.startswith(f"{name}/loss/")]
    assert len(terms) >= 6
    for term in terms:
        wanted = float(recorded(name, f"loss/{term}"))
        assert losses[term].item() == pytest.approx(wanted, rel=2e-6), term


@pytest.mark.parametrize("name", HEAD_CASES)
def test_scores_are_those_of_the_published_rescoring(name):
    model, labels = vrsp(name)
    with torch.no_grad():
        look = model._look(features(), labels)
        scores = model._rescored(features(), labels, torch.tensor(SCORES), look)
    assert abs(scores.numpy() - recorded(name, "scores")).max() < 1e-6


def test_a_published_codebook_is_read_without_running_it():
    model, _ = vrsp("kins")
    latents = pickles.load_npy(CODEBOOK)[()]
    own = model.codebook.centres.clone()
    model.codebook.fill(latents)
    assert model.codebook.counts.tolist() == [5, 0, 7]
    assert abs(model.codebook.centres - own).max() < 1e-6
    smaller = Vrsp(vrsp_config(HEAD_CASES["d2sa"]))
    with pytest.raises(InputError, match="shapes of class 2"):
        smaller.codebook.fill({2: latents[2]})
    with pytest.raises(InputError, match=r"5 shapes of 392 numbers.*128"):
        smaller.codebook.fill({0: latents[0]})


@pytest.mark.parametrize("layers", AISFORMER_LAYERS)
def test_aisformers_masks_are_those_of_the_published_head(layers):
    head = AisFormerHead(AisFormerConfig(classes=("a",), layers=layers)).eval()
    fill(head)
    with torch.no_grad():
        logits = head(features(256))[:, [0, 1, 2, 4], ::STEP, ::STEP]
    assert abs(logits.numpy() - recorded("aisformer", f"{layers} layers")).max() < 5e-5


def instances(frame, size=(200, 400)):
    """Detections of a frame of `tracker_frames`."""
    boxes, n = frame["boxes"], len(frame["scores"])
    whole = RleMasks.from_boxes(boxes, size)
    return replace(
        Instances.empty(size), amodal_boxes=boxes, visible_boxes=boxes, scores=frame["scores"],
        class_ids=frame["labels"].astype(np.int64), amodal=whole, visible=whole,
        occlusion_rates=np.zeros(n, np.float32), depths=np.zeros(n, np.float32),
        occluders=np.zeros((n, n), bool), embeddings=frame["embeddings"],
    )  # fmt: skip


@pytest.mark.parametrize("seconds", [0.1, 5.0])
@pytest.mark.parametrize("name", TRACKER_CASES)
def test_ids_are_those_of_the_published_tracker_with_all_of_its_settings(name, seconds):
    """Empty frames and long gaps included; the settings as users write them."""
    own = {"init_score_thr": 0.8, "obj_score_thr": 0.5, "memo_tracklet_frames": 10}  # its defaults
    text = ",".join(f"{k}={v}" for k, v in (own | TRACKER_CASES[name]).items())
    rules = parse_rules(text.split(","), "tracker_settings")
    ids, reappeared = [], 0
    for seed in range(TRACKER_SEEDS):
        tracker = make_tracker("quasi_dense_published", rules)
        last = {}
        for k, frame in enumerate(tracker_frames(seed)):
            tracks = tracker.step(instances(frame), int(k * seconds * 1e9))
            own_ids = np.full(len(frame["scores"]), -1)
            own_ids[tracker.origins] = tracks.ids
            ids += own_ids.tolist()
            reappeared += sum(k - last.get(i, k) > 1 for i in tracks.ids)
            last |= dict.fromkeys(tracks.ids, k)
    assert ids == recorded("tracker", name).tolist()
    assert reappeared > 20
