"""Inputs and weights for comparisons with published two-stage models, from seeds."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amodal_core.models.vrsp import VrspConfig

FIXTURES = Path(__file__).parent / "fixtures"
HEADS, CODEBOOK = FIXTURES / "two_stage_heads.npz", FIXTURES / "vrsp_codebook.npy"
CHANNELS, ROIS, SIDE = 32, 6, 28
STEP = 3  # every third row and column of a mask is kept


def draw(name: str, *shape: int) -> np.ndarray:
    """Normal float32 numbers that follow from a name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.standard_normal(shape).astype(np.float32)


def seeded(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Tensors for our names and shapes at which layers neither fade nor saturate."""
    made = {}
    for name, shape in shapes.items():
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
        gain = 60.0 if "head.weight" in name else 2.0  # of the last layer of VRSP-Net's heads
        made[name] = torch.from_numpy(draw(name, *shape) * np.sqrt(gain / fan_in))
    return made


def fill(module: torch.nn.Module, skip: str = "codebook.") -> None:
    """Put the seeded weights into a module of ours, and into no buffer of its codebook."""
    own = {n: tuple(t.shape) for n, t in module.state_dict().items() if not n.startswith(skip)}
    module.load_state_dict(seeded(own), strict=False)


@dataclass(frozen=True)
class HeadCase:
    """One way in which VRSP-Net's heads are run.

    Attributes:
        classes: how many.
        labels: of the RoIs.
        convolutions: of the auto-encoder's encoder.
        settings: ours; those of the original follow from them.
    """

    classes: int
    labels: tuple[int, ...]
    convolutions: int
    settings: dict[str, Any] = field(default_factory=dict)


# With one class the published IoU weights count that class alone, as ours do.
HEAD_CASES = {
    "kins": HeadCase(
        3, (0, 2, 2, 0, 2, 0), 2,
        {"reclassification_rescoring": False, "rescoring_alpha": 3.0},
    ),
    "d2sa": HeadCase(1, (0,) * ROIS, 3, {"reclassification_weight": 0.1}),
    "no codebook": HeadCase(
        3, (1, 2, 2, 0, 1, 0), 3,
        {"prior_refinement": False, "prior_rescoring": False,
         "reclassification_guided_weight": 0.0, "guided_weight": 0.3},
    ),
}  # fmt: skip
PRIORS = 3
AISFORMER_LAYERS = (1, 2)
BOXES = [[40.0 * n, 10, 40 * n + 30, 50] for n in range(ROIS)]  # none suppresses another
SCORES = (0.9, 0.15, 0.5, 0.07, 0.6, 0.33)


def features(channels: int = CHANNELS) -> torch.Tensor:
    """(N, C, 14, 14) of the RoIs."""
    return torch.from_numpy(np.abs(draw("features", ROIS, channels, 14, 14)))


def masks(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, side, side) bool, amodal ellipses and what shows of them."""
    y, x = (np.mgrid[:side, :side] + 0.5) * 28 / side
    a, b, cx = np.abs(draw("ellipses", 3, ROIS, 1, 1)) * [[[[4]]], [[[5]]], [[[3]]]]
    amodal = ((x - 10 - cx) / (4 + a)) ** 2 + ((y - 14) / (5 + b)) ** 2 < 1
    visible = amodal & (x < 12 + 2 * np.arange(ROIS)[:, None, None])
    return torch.from_numpy(amodal), torch.from_numpy(visible)


@dataclass
class Rois:
    """The RoIs as our losses ask for them."""

    labels: torch.Tensor
    boxes: tuple[torch.Tensor, ...] = ()

    def __len__(self) -> int:
        return ROIS

    def amodal(self, side: int) -> torch.Tensor:
        return masks(side)[0].float()

    def visible(self, side: int) -> torch.Tensor:
        return masks(side)[1].float()


def vrsp_config(case: HeadCase, **more: Any) -> VrspConfig:
    """Our settings of a case, in the published way."""
    return VrspConfig(**{
        "classes": tuple(f"class {n}" for n in range(case.classes)), "backbone": "resnet18",
        "norm": "group", "frozen_stages": 0, "channels": CHANNELS, "reclassification_hidden": 16,
        "centres": 16, "priors": PRIORS, "encoder_convolutions": case.convolutions,
        "prior_query": "logits", "guided_visible": "amodal",
    } | case.settings | more)  # fmt: skip


TRACKER_SEEDS = 4
TRACKER_CASES: dict[str, dict[str, Any]] = {
    "driving": {"init_score_thr": 0.7, "obj_score_thr": 0.3, "memo_tracklet_frames": 10},
    "sailvos": {"init_score_thr": 0.01, "obj_score_thr": 0.01, "memo_tracklet_frames": 32},
    "all eleven": {
        "init_score_thr": 0.6, "obj_score_thr": 0.4, "match_score_thr": 0.3,
        "memo_tracklet_frames": 4, "memo_backdrop_frames": 3, "memo_momentum": 0.5,
        "nms_conf_thr": 0.6, "nms_backdrop_iou_thr": 0.1, "nms_class_iou_thr": 0.5,
        "with_cats": False, "match_metric": "softmax",
    },
    "cosine": {"match_metric": "cosine", "init_score_thr": 0.7, "obj_score_thr": 0.3},
}  # fmt: skip


def tracker_frames(seed: int, count: int = 60) -> list[dict[str, np.ndarray]]:
    """Detections of seven objects that come and go, some twice, in frames of which some are empty.

    Returns:
        per frame `boxes` (N, 4) float32 xyxy, `scores` (N,), `labels` (N,), `embeddings` (N, 6).
    """
    rng = np.random.default_rng(seed)
    prototypes = rng.normal(size=(7, 6)) * 1.5
    frames = []
    for k in range(count):
        empty = k % 10 == 7 or 20 <= k < 26  # single ones, and longer than some memory
        who = rng.permutation(7)[: 0 if empty else rng.integers(1, 7)]
        who = np.concatenate([who, who[:2]])
        n = len(who)
        corner = np.stack([who % 4 * 90.0, who // 4 * 55.0], 1) + rng.uniform(0, 25, (n, 2))
        frames.append(
            {
                "boxes": np.concatenate([corner, corner + rng.uniform(20, 40, (n, 2))], 1),
                "scores": rng.random(n) ** 0.5,
                "labels": who % 2,
                "embeddings": prototypes[who] + rng.normal(size=(n, 6)) * 0.4,
            }
        )
    return [{k: v if k == "labels" else v.astype(np.float32) for k, v in f.items()} for f in frames]
