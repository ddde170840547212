"""The published configurations are the published models and schedules; see `record_configs.py`."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from model_scenes import frame, truth
from torch import nn
from torchvision.models.detection.rpn import RegionProposalNetwork
from training_scenes import CLASSES, Streets, run_config

from amodal_core.errors import InputError
from amodal_core.frame import Instances, joined
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.imports.class_names import SAILVOS
from amodal_core.models.layers.backbone import resnet_fpn
from amodal_core.models.layers.batch import make_batch, targets_of
from amodal_core.settings import checked
from amodal_core.tracking import make_tracker
from amodal_core.tracking.quasi_dense import PRESETS
from training.config import Optimiser, read
from training.distributed import Place
from training.judge import judge
from training.schedules import factor, make_optimizer
from training.setup import begin_with, open_data
from training.sources import Samples

TEST = Path(__file__).parent
PUBLISHED = json.loads((TEST / "fixtures" / "published_configs.json").read_text())
DETECTRON = [n for n in PUBLISHED if n.startswith(("kins/", "d2sa/", "cocoa_cls/"))]
MMDETECTION = [n for n in PUBLISHED if n.startswith("sailvos/")]
TRACKER = [k for k in PUBLISHED["driving"]["tracker"] if k != "type"]


def ours(name):
    """A configuration, and the checked settings of its model."""
    config = read(TEST.parent / "training" / "configs" / f"{name}.yaml")
    kind = registry.learned(config.model)
    names = SAILVOS if name.startswith("sailvos") else ("a", "b")
    return config, checked(kind.Config, config.settings | {"classes": names}, name)


@pytest.mark.parametrize("name", DETECTRON)
def test_trunk_and_schedule_are_those_of_detectron2s_configuration(name):
    theirs, (config, model) = PUBLISHED[name], ours(name)
    rpn, heads, box = (theirs["MODEL"][k] for k in ("RPN", "ROI_HEADS", "ROI_BOX_HEAD"))
    solver, size = theirs["SOLVER"], theirs["INPUT"]
    assert model.proposals_train == rpn["POST_NMS_TOPK_TRAIN"]
    assert model.proposals == rpn["POST_NMS_TOPK_TEST"]
    assert (model.proposal_beta, model.box_beta) == (rpn["SMOOTH_L1_BETA"], box["SMOOTH_L1_BETA"])
    assert (model.samples, model.positive_share) == (
        heads["BATCH_SIZE_PER_IMAGE"], heads["POSITIVE_FRACTION"],
    )  # fmt: skip
    assert (model.min_score, model.nms, model.max_instances) == (
        heads["SCORE_THRESH_TEST"], heads["NMS_THRESH_TEST"],
        theirs["TEST"]["DETECTIONS_PER_IMAGE"],
    )  # fmt: skip
    assert (box["POOLER_TYPE"], box["POOLER_SAMPLING_RATIO"]) == ("ROIAlignV2", 0)
    assert model.roi_align == "aligned"
    assert not model.rounded_anchors
    assert (model.norm, model.frozen_stages) == ("frozen", theirs["MODEL"]["BACKBONE"]["FREEZE_AT"])
    assert (model.short_side, model.long_side) == (size["MIN_SIZE_TEST"], size["MAX_SIZE_TEST"])
    assert size["MAX_SIZE_TRAIN"] == model.long_side
    assert (model.resize, model.paste) == ("pil", "probabilities")
    assert list(config.augment.short_sides or [model.short_side]) == size["MIN_SIZE_TRAIN"]
    # The first weights are public in torchvision's form; those of a detector are that detector's.
    assert bool(config.init) == ("COCO-Detection" in theirs["MODEL"]["WEIGHTS"])
    assert bool(model.weights) != bool(config.init)
    # The schedule.
    assert (config.batch_size, config.steps) == (solver["IMS_PER_BATCH"], solver["MAX_ITER"])
    assert (config.optimiser.rate, config.optimiser.momentum) == (
        solver["BASE_LR"], solver["MOMENTUM"],
    )  # fmt: skip
    assert list(config.schedule.milestones) == solver["STEPS"]
    assert (config.schedule.gamma, config.schedule.warm_up, config.schedule.warm_up_from) == (
        solver["GAMMA"], solver["WARMUP_ITERS"], solver["WARMUP_FACTOR"],
    )  # fmt: skip
    assert (config.optimiser.weight_decay, solver["WEIGHT_DECAY_NORM"]) == (
        solver["WEIGHT_DECAY"], 0,
    )  # fmt: skip
    assert config.optimiser.decays == "biases"
    assert solver["BIAS_LR_FACTOR"] == 1


@pytest.mark.parametrize("name", DETECTRON)
def test_heads_are_those_of_detectron2s_configuration(name):
    theirs, (_, model) = PUBLISHED[name]["MODEL"], ours(name)
    head = theirs["ROI_MASK_HEAD"]
    if name.endswith("mask_rcnn"):
        assert model.mask_convolutions == head["NUM_CONV"]
    elif name.endswith("aisformer"):
        own = theirs["AISFormer"]
        assert (model.layers, model.heads) == (own["N_LAYERS"], own["N_HEADS"])
    elif name.endswith("vrsp"):
        recls, recon = head["RECLS_NET"], head["RECON_NET"]
        assert (head["VERSION"], head["NUM_CONV"]) == (3, 4)
        assert model.refinement == "cross"
        assert model.guided_weight == head["GT_AMODAL_WEIGHT"] == head["GT_VISIBLE_WEIGHT"]
        assert model.feature_matching == (head["AMODAL_FEATURE_MATCHING"] == [3, 4])
        assert list(model.matching_weights) == head["AMODAL_FM_BETA"]
        assert (recls["NAME"], recls["MODE"]) == ("ReclsConvFCHead", "adaptive")
        assert model.reclassification
        assert model.reclassification_rescoring == recls["RESCORING"]
        assert model.reclassification_weight == recls["LAMBDA"]
        assert model.reclassification_guided_weight == recls["GT_WEIGHT"]
        assert model.reclassification_hidden == recls["FC_DIM"]
        assert (model.prior_refinement, model.prior_rescoring) == (
            recon["MEMORY_REFINE"], recon["RESCORING"],
        )  # fmt: skip
        assert (model.priors, model.centres) == (recon["MEMORY_REFINE_K"], recon["KMEANS"])
        assert model.encoder_convolutions == recon["NUM_CONV"]
        assert (model.rescoring_alpha, model.prior_iou) == (recon["ALPHA"], recon["MASK_THS"])
        # What the published code does without a setting of its own.
        assert (model.prior_query, model.guided_visible, model.candidates) == (
            "logits",
            "amodal",
            0,
        )


@pytest.mark.parametrize("name", MMDETECTION)
def test_models_of_videos_are_those_of_mmdetections_configuration(name):
    theirs, (config, model) = PUBLISHED[name], ours(name)
    network, roi_head = theirs["model"], theirs["model"]["roi_head"]
    backbone, test, train = network["backbone"], network["test_cfg"], network["train_cfg"]
    assert (backbone["depth"], backbone["groups"], backbone["base_width"]) == (101, 64, 4)
    assert model.backbone == "resnext101_64x4d"
    assert model.frozen_stages == backbone["frozen_stages"] + 1  # the stem is counted here
    assert (backbone["norm_eval"], backbone["norm_cfg"]["requires_grad"]) == (True, True)
    assert model.norm == "scaled"
    assert model.proposals_train == train["rpn_proposal"]["max_num"]
    assert model.proposals == test["rpn"]["max_num"]
    assert model.proposal_side == test["rpn"]["min_bbox_size"]
    assert model.proposal_beta == pytest.approx(network["rpn_head"]["loss_bbox"]["beta"])
    assert (model.samples, model.positive_share) == (
        train["rcnn"]["sampler"]["num"], train["rcnn"]["sampler"]["pos_fraction"],
    )  # fmt: skip
    assert model.track_samples == train["embed"]["sampler"]["num"]
    assert (model.min_score, model.nms, model.max_instances) == (
        test["rcnn"]["score_thr"], test["rcnn"]["nms"]["iou_threshold"],
        test["rcnn"]["max_per_img"],
    )  # fmt: skip
    box_heads = [h for k, h in roi_head.items() if k.endswith("bbox_head")]
    assert len(box_heads) == (2 if name.endswith("two_box") else 1)
    for head in box_heads:
        assert model.box_beta == head["loss_bbox"]["beta"]
        weights = dict(zip((*SAILVOS, "background"), head["loss_cls"]["class_weight"], strict=True))
        assert model.class_weights == weights
    masks = {"visible": roi_head["mask_head"]["loss_mask"]["loss_weight"]}
    if "amodal_mask_head" in roi_head:
        masks["amodal"] = roi_head["amodal_mask_head"]["loss_amodal_mask"]["loss_weight"]
    assert {k: getattr(model, f"{k}_weight") for k in masks} == masks
    assert roi_head["bbox_roi_extractor"]["roi_layer"]["sampling_ratio"] == 0
    assert model.roi_align == "aligned"
    assert not model.rounded_anchors
    assert [model.long_side, model.short_side] == theirs["img_scale"]
    assert (model.resize, model.paste) == ("opencv", "probabilities")
    assert config.clip.reach == theirs["ref_img_sampler"]["scope"]
    # The schedule: steps for the epochs of a set as large as SAIL-VOS-cut's.
    epoch = config.steps / theirs["total_epochs"]
    rate = theirs["lr_config"]
    assert [m / epoch for m in config.schedule.milestones] == rate["step"]
    assert config.schedule.warm_up == rate["warmup_iters"]
    assert config.schedule.warm_up_from == pytest.approx(rate["warmup_ratio"], rel=1e-4)
    sgd = theirs["optimizer"]
    assert (config.batch_size, config.optimiser.rate) == (theirs["samples_per_gpu"], sgd["lr"])
    assert (config.optimiser.momentum, config.optimiser.weight_decay) == (
        sgd["momentum"], sgd["weight_decay"],
    )  # fmt: skip
    assert config.optimiser.decays == "all"  # no paramwise_cfg
    tracker = make_tracker(config.tracker, config.tracker_settings).config
    assert {k: getattr(tracker, k) for k in TRACKER if k in network["tracker"]} == {
        k: network["tracker"][k] for k in TRACKER
    }
    assert theirs["load_from"].endswith("resnext101_64_4d.pth")
    assert (config.init, config.init_classes) == ("weights/coco_x101.safetensors", "any")


@pytest.mark.parametrize(("preset", "name"), [("driving", "driving"), ("sailvos", MMDETECTION[0])])
def test_presets_of_the_tracker_are_the_published_settings(preset, name):
    theirs = PUBLISHED[name]
    settings = theirs.get("tracker") or theirs["model"]["tracker"]
    own = asdict(PRESETS[preset])
    assert {k: own[k] for k in settings if k != "type"} == {
        k: v for k, v in settings.items() if k != "type"
    }
    assert len(settings) == 12  # the type and eleven parameters


def test_weights_that_decay_are_those_of_the_setting():
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    linear, bias, scale, shift = module.parameters()
    for decays, wanted in (
        ("matrices", {linear}), ("biases", {linear, bias}), ("all", {linear, bias, scale, shift}),
    ):  # fmt: skip
        optimizer = make_optimizer(module, Optimiser(name="sgd", decays=decays))
        decaying = [g["params"] for g in optimizer.param_groups if g["weight_decay"]]
        assert {w for group in decaying for w in group} == wanted


def test_scaled_norms_learn_scale_and_shift_and_keep_their_statistics():
    frozen, scaled = (resnet_fpn("resnet18", lidar=False, norm=n) for n in ("frozen", "scaled"))
    scaled.load_state_dict(frozen.state_dict())
    image = torch.rand(1, 3, 64, 64)
    before = scaled.train().body.layer1[0].bn1.running_mean.clone()
    both = frozen(image)["0"], scaled(image)["0"]
    assert torch.equal(*both)
    both[1].sum().backward()
    norm = scaled.body.layer1[0].bn1
    assert norm.weight.grad.any()
    assert norm.bias.grad.any()
    assert torch.equal(norm.running_mean, before)
    assert "bn1.weight" not in dict(frozen.body.named_parameters())


def test_warm_up_begins_at_the_published_share_and_reaches_the_rate():
    schedule = ours("sailvos/vatrack")[0].schedule
    assert factor(schedule, 0, 254400) == pytest.approx(1 / 6000, rel=1e-4)
    assert factor(schedule, 6000, 254400) == 1
    assert factor(schedule, 233200, 254400) == pytest.approx(0.01)


def small(name, *classes, **settings):
    return registry.learned(name).from_config(
        {"classes": classes, "backbone": "resnet18", "norm": "group", "frozen_stages": 0,
         "channels": 32, "samples": 8, "proposals_train": 20} | settings
    )  # fmt: skip


def test_a_run_may_begin_with_a_detector_of_other_classes(tmp_path):
    """What depends on the classes begins anew, all else is taken, as mmdetection does it."""
    path = str(tmp_path / "coco.safetensors")
    coco = small("mask_rcnn", "a", "b")
    save_checkpoint(path, coco, CheckpointInfo("mask_rcnn", coco.config_json(), coco.classes))
    model = small("vatrack", "b", "c")  # as many, but others: shapes alone would not tell
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(InputError, match=r"init_classes: any"):
        begin_with(model, path)
    assert "of mask_rcnn, which has other classes" in begin_with(model, path, any_classes=True)
    own, theirs = model.state_dict(), coco.state_dict()
    for name, value in own.items():
        of_classes = "box_predictor" in name or name.endswith(("logits.weight", "logits.bias"))
        of_classes &= not name.startswith("rpn")
        source = theirs if name in theirs and not of_classes else before
        assert torch.equal(value, source[name]), name


def test_losses_of_classes_and_boxes_are_those_of_their_definitions():
    weights = {"a": 0.1, "b": 104.0, "background": 2.0}
    torch.manual_seed(0)
    model = small("mask_rcnn", "a", "b", class_weights=weights, box_beta=0.0, samples=64)
    frames = [frame(64, 96, seed=n) for n in range(2)]
    targets = [targets_of(truth((64, 96), [(6, 8, 50, 50), (40, 20, 80, 60)])) for _ in frames]
    batch = make_batch(frames, targets)
    kept = {}
    predict, select = model.heads.predict, model.heads.select_training_samples
    model.heads.predict = lambda *given: kept.setdefault("predicted", predict(*given))
    model.heads.select_training_samples = lambda *given: kept.setdefault("samples", select(*given))
    losses = model.train().losses(batch)
    (logits, deltas), (_, _, labels, wanted) = kept["predicted"], kept["samples"]
    labels, wanted = torch.cat(labels), torch.cat(wanted)
    table = [weights["background"], weights["a"], weights["b"]]
    total = off = 0.0
    for row, label in enumerate(labels.tolist()):
        total -= table[label] * logits[row].log_softmax(0)[label].item()
        if label:
            off += (deltas[row, 4 * label : 4 * label + 4] - wanted[row]).abs().sum().item()
    assert set(labels.tolist()) == {0, 1, 2}
    assert losses["class"].item() == pytest.approx(total / len(labels), rel=1e-5)
    assert losses["box"].item() == pytest.approx(off / len(labels), rel=1e-5)
    with pytest.raises(InputError, match="class_weights of tram, which are no classes"):
        small("mask_rcnn", "a", class_weights={"tram": 2.0})


def test_proposals_learn_linearly_from_the_first_error_where_the_beta_is_0():
    plain = small("mask_rcnn", "a").rpn
    linear = small("mask_rcnn", "a", proposal_beta=0.0).rpn
    draw = torch.Generator().manual_seed(0)
    logits, deltas, wanted = (torch.randn(500, n, generator=draw) for n in (1, 4, 4))
    labels = (torch.rand(500, generator=draw) < 0.1).float()
    given = logits, 0.1 * deltas, [labels], [0.1 * wanted]
    for network, beta in ((plain, 1 / 9), (linear, 0.0)):
        torch.manual_seed(1)
        objects, boxes = network.compute_loss(*given)
        torch.manual_seed(1)
        known, their_boxes = RegionProposalNetwork.compute_loss(network, *given)
        assert objects.item() == pytest.approx(known.item())
        if beta:
            assert boxes.item() == pytest.approx(their_boxes.item())
        else:
            positive = labels > 0
            errors = 0.1 * (deltas - wanted)[positive].abs()
            assert boxes.item() == pytest.approx(errors.sum().item() / 256, rel=1e-5)


class EverythingTwice:
    """Finds the truth, each object twice, with less confidence from frame to frame."""

    name, classes, inputs = "twice", CLASSES, frozenset({"image"})

    def __init__(self, data):
        self.truths = {s.frame.stamp: s.truth for s in data.samples}

    def infer(self, frames, report=None):
        found = []
        for one in frames:
            truth = self.truths[one.stamp]
            n = len(truth)
            order = list(self.truths).index(one.stamp)
            first = Instances(**{f.name: getattr(truth, f.name) for f in fields(Instances)})
            first = replace(
                first, scores=np.full(n, 0.9 - 0.2 * order, np.float32),
                embeddings=np.eye(n, 8, dtype=np.float32) * 5,
            )  # fmt: skip
            again = replace(first, scores=first.scores - np.float32(0.05))
            found.append(joined([first, again]))
        return found


def test_held_out_videos_are_judged_on_tracks_where_a_tracker_is_named():
    data = Streets(3)
    for k, sample in enumerate(data.samples):
        sample.video, sample.index = "a", k
        sample.frame.stamp = k * 100_000_000
    samples = Samples([(data, range(3))], CLASSES, {}, 0, 0)
    model, place = EverythingTwice(data), Place(0, 1, torch.device("cpu"))
    display = SimpleNamespace(preparing=lambda *_: None)
    plain = judge(model, samples, 2, place, display)
    tracker = partial(make_tracker, "quasi_dense_published")
    tracked = judge(model, samples, 2, place, display, tracker)
    assert plain["amodal AP"] < 0.9
    assert tracked["amodal AP"] == pytest.approx(1.0)
    config = run_config(
        Path("out"), Path("data"), model="vatrack", tracker="quasi_dense_published",
        tracker_settings={"init_score": 0.5},
    )  # fmt: skip
    with pytest.raises(InputError, match="no setting 'init_score'"):
        open_data(config, place, display)
