"""Quasi-dense similarity learning: RoIs of two frames of a video, and what makes them alike.

Pang et al., Quasi-Dense Similarity Learning for Multiple Object Tracking, CVPR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import box_iou

from amodal_core.models.layers.batch import Batch, Targets
from amodal_core.models.layers.parts import InParts
from amodal_core.models.layers.roi_features import RoiAlign, RoiFeatures

EMBEDDING = 256
_HIDDEN = 4  # width of the hidden layer in channels of the pyramid: 1024 for 256
_POSITIVE, _NEGATIVE = 0.7, 0.3  # IoU with an object from which, and below which
_BINS = 3  # of IoU, from which negatives are drawn alike
_NEGATIVES = 3  # for each positive at most
_MARGIN = 0.3  # cosine that two different objects may have
_NEVER = -1e9


class EmbeddingHead(InParts, nn.Module):
    """What an object looks like, as a vector: four convolutions and two layers over its RoI.

    Args:
        channels: of the pyramid.
        kind: of RoIAlign.
    """

    def __init__(self, channels: int, kind: RoiAlign) -> None:
        super().__init__()
        self.elsewhere = {}
        width = _HIDDEN * channels
        self.pool = RoiFeatures(7, kind)
        convolutions: list[nn.Module] = []
        for _ in range(4):
            convolutions += [
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.GroupNorm(32, channels),
                nn.ReLU(inplace=True),
            ]
        self.convolutions = nn.Sequential(*convolutions)
        self.hidden = nn.Linear(channels * 49, width)
        self.embedding = nn.Linear(width, EMBEDDING)
        for layer in self.convolutions:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.xavier_uniform_(self.hidden.weight)
        nn.init.normal_(self.embedding.weight, std=0.01)
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.embedding.bias)

    def forward(
        self, features: dict[str, torch.Tensor], boxes: list[torch.Tensor], batch: Batch
    ) -> torch.Tensor:
        """(N, 256) float32 embeddings, of any length, of the boxes of all images in a row."""
        (embedded,) = self.ran("embedded", self.pool(features, boxes, batch.sizes))
        return embedded

    def embedded(self, pooled: torch.Tensor) -> tuple[torch.Tensor]:
        """The same from the features (N, channels, 7, 7) in the boxes."""
        x = self.convolutions(pooled).flatten(1)
        return (self.embedding(F.relu(self.hidden(x))).float(),)


@dataclass
class TrackRois:
    """RoIs of one image, by the object that they show.

    Attributes:
        boxes: (R, 4) float32 xyxy.
        ids: (R,) int64 identities within the video, -1 for background.
    """

    boxes: torch.Tensor
    ids: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def objects(self) -> TrackRois:
        """Those that show an object."""
        shown = self.ids >= 0
        return TrackRois(self.boxes[shown], self.ids[shown])


def sample_rois(
    proposals: torch.Tensor, wanted: Targets, ignored: torch.Tensor, count: int
) -> TrackRois:
    """RoIs for learning likeness: at most half on objects, each object as often as the others.

    The rest is background, evenly from three ranges of overlap, at most three for each RoI on an
    object. Objects are proposals, too; what lies on ignored objects is left out.

    Args:
        proposals: (P, 4).
        wanted: N objects at their `boxes`.
        ignored: (M, 4) boxes of ignored objects.
        count: RoIs at most.
    """
    boxes = torch.cat([wanted.boxes.to(proposals.dtype), proposals])
    overlaps = box_iou(boxes, wanted.boxes) if len(wanted) else boxes.new_zeros((len(boxes), 1))
    best, which = overlaps.max(1)
    positive = (best >= _POSITIVE).nonzero()[:, 0]
    half = count // 2
    shown = max(len(which[positive].unique()), 1)
    positive = positive[_evenly(which[positive], half, round(half / shown) + 1)]
    background = best < _NEGATIVE
    if len(ignored):
        background &= box_iou(boxes, ignored).amax(1) < _NEGATIVE
    negative = background.nonzero()[:, 0]
    bins = (best[negative] / _NEGATIVE * _BINS).long().clamp(max=_BINS - 1)
    most = min(count - len(positive), _NEGATIVES * max(len(positive), 1))
    negative = negative[_evenly(bins, most, most // _BINS)]
    nothing = torch.full_like(negative, -1)
    ids = wanted.ids[which[positive]] if len(wanted) else which[positive]
    return TrackRois(boxes[torch.cat([positive, negative])], torch.cat([ids, nothing]))


def _evenly(groups: torch.Tensor, count: int, each: int) -> torch.Tensor:
    """Indices of `count` entries at random: `each` of every group before any other.

    Args:
        groups: (N,) int, the group of every entry.
        count: of entries; all where there are no more.
        each: see above.
    """
    n, device = len(groups), groups.device
    if n <= count:
        return torch.arange(n, device=device)
    order = torch.randperm(n, device=device)
    order = order[groups[order].argsort(stable=True)]
    together = groups[order].contiguous()
    place = torch.arange(n, device=device) - torch.searchsorted(together, together)
    last = (place >= each).float() + torch.rand(n, device=device)
    return order[last.argsort()[:count]]


def track_losses(
    keys: torch.Tensor, references: torch.Tensor, same: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The contrastive and the auxiliary loss of the RoIs of a key frame and its reference.

    Contrastive: log(1 + sum over positives of e^-s * sum over negatives of e^s), the mean over key
    RoIs that have a positive. Auxiliary: squared error of the cosines against 0 and 1, where
    negatives get a margin and only the hardest are taken, three for each positive.

    Args:
        keys: (K, D) embeddings of RoIs on objects.
        references: (R, D) embeddings.
        same: (K, R) bool, whether two RoIs show the same object.
        temperature: 0 for similarities s that are dot products; else they are cosines over it.

    Returns:
        Two scalars; zeros with a gradient where nothing can be compared.
    """
    nothing = keys.sum() * 0 + references.sum() * 0
    if not len(keys) or not len(references):
        return nothing, nothing
    with torch.autocast(keys.device.type, enabled=False):
        keys, references = keys.float(), references.float()
        cosines = F.normalize(keys, dim=1) @ F.normalize(references, dim=1).t()
        alike = cosines / temperature if temperature else keys @ references.t()
        compared = same.any(1)
        # log(sum e^a) + log(sum e^b) = log(sum of all products): nothing overflows, so that the
        # published clamp of e^s at s = 80 is not needed. Under it embeddings that are all alike
        # and long have a loss of 0, and stay so.
        for_all = torch.logsumexp(alike.masked_fill(same, _NEVER), 1)
        for_all = for_all + torch.logsumexp((-alike).masked_fill(~same, _NEVER), 1)
        contrastive = torch.where(compared, F.softplus(for_all), 0.0).sum()
        contrastive = contrastive / compared.sum().clamp(min=1)
    return contrastive + nothing, _auxiliary(cosines, same) + nothing


def _auxiliary(cosines: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    wanted = same.to(cosines.dtype)
    errors = ((cosines - _MARGIN * (1 - wanted)).clamp(0, 1) - wanted) ** 2
    apart = errors[~same]
    hardest = apart.topk(min(len(apart), _NEGATIVES * (errors.numel() - len(apart)))).values
    total = torch.cat([errors[same], hardest])
    return total.sum() / max(len(total), 1)
