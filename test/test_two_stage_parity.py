"""Heads of two-stage models give what the published code gives; see `record_two_stage.py`."""

from __future__ import annotations

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
    Rois,
    features,
    fill,
    masks,
    vrsp_config,
)

from amodal_core import pickles
from amodal_core.errors import InputError
from amodal_core.models.aisformer import AisFormerConfig, AisFormerHead
from amodal_core.models.vrsp import Vrsp

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
        logits = model.masks(None, [], [labels], None)
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
