"""The shape prior of VRSP-Net: an auto-encoder of masks, and the usual masks of each class.

The codebook holds latents of masks that the training set showed, thinned by k-means; what lies
nearest to a mask's latent, decoded, is a plausible whole shape for it.

The auto-encoder sees binary masks everywhere, in training and in use: latents of logits would lie
elsewhere than those of the codebook.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import box_iou

from amodal_core import pickles
from amodal_core.errors import InputError, foreign
from amodal_core.extras import extra
from amodal_core.files import atomic
from amodal_core.models.layers.attended_masks import mask_ious
from amodal_core.models.layers.batch import Targets
from amodal_core.models.layers.mask_branch import SIDE
from amodal_core.models.layers.positive_rois import PositiveRois

_CHANNELS = 8
# Side of the latent, and of each decoder stage's input with the padding of its convolution; the
# stage without padding makes 14 of 16.
_LATENT_SIDES = {2: 7, 3: 4}
_PADDINGS = {2: (1, 1), 3: (1, 0, 1)}
_MOST_CLUSTERED = 1 << 17  # masks of a class that k-means sees, augmented; 200 MB of latents
_ENCODED_AT_ONCE = 4096
_CLOSE_BOX = 0.8  # IoU of a box whose mask may train the auto-encoder
_WORDS = 13  # of 64 bits, which a mask of 28x28 bits fills


class MaskAutoEncoder(nn.Module):
    """Binary 28x28 masks to latents and back, in single precision whatever the model runs in.

    Args:
        convolutions: of stride 2 in the encoder, 2 or 3; 3 give latents of 128 numbers, 2 of 392.
    """

    def __init__(self, convolutions: int) -> None:
        super().__init__()
        self.side = _LATENT_SIDES[convolutions]
        self.width = _CHANNELS * self.side**2
        down: list[nn.Module] = []
        for n in range(convolutions):
            down += [nn.Conv2d(_CHANNELS if n else 1, _CHANNELS, 3, 2, 1), nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(*down)
        up: list[nn.Module] = []
        for padding in _PADDINGS[convolutions]:
            up += [
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
                nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=padding),
                nn.ReLU(inplace=True),
            ]
        self.decoder = nn.Sequential(*up, nn.Conv2d(_CHANNELS, 1, 3, padding=1), nn.Sigmoid())
        # So few channels die under smaller weights with biases.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def encode(self, masks: torch.Tensor) -> torch.Tensor:
        """(N, D) float32 latents of (N, 28, 28) masks, 0 or 1."""
        with torch.autocast(masks.device.type, enabled=False):
            latents: torch.Tensor = self.encoder(masks.float()[:, None]).flatten(1)
            return latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(N, 28, 28) float32 masks between 0 and 1 of (N, D) latents."""
        with torch.autocast(latents.device.type, enabled=False):
            grids = latents.float().view(-1, _CHANNELS, self.side, self.side)
            masks: torch.Tensor = self.decoder(grids)[:, 0]
            return masks

    def loss(self, masks: torch.Tensor) -> torch.Tensor:
        """Mean squared error of (N, 28, 28) masks of 0 and 1; 0 with a gradient where N is 0."""
        if not len(masks):
            return sum((p.sum() * 0 for p in self.parameters()), masks.new_zeros(()))
        return F.mse_loss(self.decode(self.encode(masks)), masks.float())


class Codebook(nn.Module):
    """Latents of usual masks, class by class; its size does not depend on what is in it.

    Args:
        classes: how many.
        centres: of a class at most.
        width: of a latent.
    """

    centres: torch.Tensor
    counts: torch.Tensor

    def __init__(self, classes: int, centres: int, width: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(classes, centres, width))
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))

    @property
    def built(self) -> bool:
        """Whether any class has a centre."""
        return bool(self.counts.any())

    def clear(self) -> None:
        """Forget all centres."""
        self.centres.zero_()
        self.counts.zero_()

    def fill(self, latents: dict[int, np.ndarray]) -> None:
        """Replace the contents.

        Args:
            latents: class id -> (M, D) float32, M at most the codebook's size; as the published
                code saves them, read by `pickles.load_npy`, for example.

        Raises:
            InputError: a class that there is not, or latents of another size, or too many.
        """
        classes, most, width = self.centres.shape
        for label, rows in latents.items():
            if not 0 <= label < classes or rows.ndim != 2:
                raise InputError(f"shapes of class {label}", "codebook", f"of {classes} classes")
            if len(rows) > most or rows.shape[1] != width:
                raise InputError(
                    f"{len(rows)} shapes of {rows.shape[1]} numbers",
                    f"codebook, class {label}",
                    f"at most {most} (centres) of {width} (encoder_convolutions)",
                )
        self.clear()
        for label, rows in latents.items():
            self.centres[label, : len(rows)] = torch.as_tensor(rows).to(self.centres)
            self.counts[label] = len(rows)

    def nearest(
        self, queries: torch.Tensor, labels: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest centres of each query's class by Euclidean distance, nearest first.

        A class with fewer than k centres repeats them in turn. Classes are searched one by one,
        all queries of a class at once.

        Args:
            queries: (N, D) latents.
            labels: (N,) class ids.
            k: how many.

        Returns:
            latents (N, k, D), zeros where the class has no centre, and (N,) bool where it has one.
        """
        latents = self.centres.new_zeros((len(queries), k, self.centres.shape[2]))
        counts: list[int] = self.counts.tolist()
        for label in labels.unique().tolist():
            if not counts[label]:
                continue
            rows = (labels == label).nonzero()[:, 0]
            own = self.centres[label, : counts[label]]
            # The way over a matrix product loses digits, and other ones in other batches.
            distances = torch.cdist(
                queries[rows].to(own), own, compute_mode="donot_use_mm_for_euclid_dist"
            )
            some = min(k, len(own))
            order = distances.topk(some, largest=False).indices
            latents[rows] = own[order[:, torch.arange(k, device=order.device) % some]]
        return latents, self.counts[labels] > 0


class MaskCollection:
    """The masks of each class that a codebook is made from, one bit a cell, each mask once.

    Of very many different masks of a class a sample remains, the same whatever their order: those
    whose hashes are the smallest.

    Args:
        classes: how many.
        seed: of the sample, and of k-means.
        most: different masks of a class that are kept.
    """

    def __init__(self, classes: int, seed: int = 0, most: int = _MOST_CLUSTERED // 8) -> None:
        self.seed, self.most = seed, most
        self._rows: list[list[np.ndarray]] = [[] for _ in range(classes)]
        words = np.random.default_rng(seed).integers(0, 1 << 63, _WORDS, np.uint64)
        self._factors = words * np.uint64(2) + np.uint64(1)

    def add(self, masks: torch.Tensor, labels: torch.Tensor) -> None:
        """Take in (N, 28, 28) masks of 0 and 1 with their (N,) class ids; empty ones are left."""
        some = masks.flatten(1).any(1)
        bits = np.packbits(masks[some].flatten(1).bool().cpu().numpy(), axis=1)
        ids = labels[some].cpu().numpy()
        for label in np.unique(ids):
            rows = self._rows[label]
            rows.append(bits[ids == label])
            if sum(map(len, rows)) > 2 * self.most:
                self._rows[label] = [self._sample(rows)]

    def _sample(self, rows: list[np.ndarray]) -> np.ndarray:
        """Different masks, `most` at most, in the order of their bits."""
        distinct = np.unique(np.concatenate(rows), axis=0)
        if len(distinct) <= self.most:
            return distinct
        padded = np.pad(distinct, ((0, 0), (0, 8 * _WORDS - distinct.shape[1])))
        mixed = (padded.view(np.uint64) * self._factors).sum(1, dtype=np.uint64)
        mixed ^= mixed >> np.uint64(31)
        mixed *= self._factors[0]
        return distinct[np.sort(np.argsort(mixed, kind="stable")[: self.most])]

    def save(self, path: Path, done: int, run: str) -> None:
        """Write what is there, to go on from: frames that are done, and of which run."""
        classes = {str(label): self._sample(rows) for label, rows in enumerate(self._rows) if rows}
        with atomic(path) as part, open(part, "wb") as file:
            np.savez(file, done=done, run=run, **classes)  # type: ignore[arg-type]

    def load(self, path: Path, run: str) -> int:
        """Take in what was saved of the same run: the number of frames that are done, else 0."""
        if not path.is_file():
            return 0
        with foreign(path, "no masks of a codebook", "remove it"), pickles.Arrays(path) as saved:
            if str(saved["run"]) != run:
                return 0
            for name in saved:
                if name.isdigit():
                    self._rows[int(name)].append(saved[name])
            return int(saved["done"])

    def latents(self, auto_encoder: MaskAutoEncoder, centres: int) -> dict[int, np.ndarray]:
        """Cluster each class's masks, turned and mirrored, in latent space.

        Args:
            auto_encoder: encodes them, on its own device.
            centres: of a class; where there are no more different masks, all are kept.

        Returns:
            class id -> (M, D) float32, of classes with a mask.
        """
        return {
            label: _centres(self._sample(rows), auto_encoder, centres, self.seed)
            for label, rows in enumerate(self._rows)
            if rows
        }


def _centres(
    distinct: np.ndarray, auto_encoder: MaskAutoEncoder, most: int, seed: int
) -> np.ndarray:
    masks = np.unpackbits(distinct, axis=1, count=SIDE * SIDE).reshape(-1, SIDE, SIDE)
    turned = np.unique(np.packbits(turns(masks).reshape(-1, SIDE * SIDE), axis=1), axis=0)
    device = next(auto_encoder.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(turned), _ENCODED_AT_ONCE):
            some = np.unpackbits(turned[start : start + _ENCODED_AT_ONCE], axis=1, count=SIDE**2)
            grids = torch.from_numpy(some.reshape(-1, SIDE, SIDE)).to(device)
            parts.append(auto_encoder.encode(grids).cpu().numpy())
    latents = np.concatenate(parts)
    if len(latents) <= most:
        return latents
    with extra("train", "codebook"):
        from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(
        most, batch_size=max(_ENCODED_AT_ONCE, most), n_init=1, random_state=seed
    ).fit(latents)
    return np.asarray(means.cluster_centers_, np.float32)


def turns(masks: np.ndarray) -> np.ndarray:
    """(8 N, S, S): masks (N, S, S) turned by 0, 90, 180 and 270 degrees, each mirrored, too."""
    both: Iterable[np.ndarray] = (masks, masks[:, :, ::-1])
    return np.concatenate([np.rot90(m, k, (1, 2)) for m in both for k in range(4)])


def near_objects(
    boxes: torch.Tensor, labels: torch.Tensor, truth: Targets
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (M, 4) that are close to an object of their class, and which object (M,) it is."""
    overlap = box_iou(boxes, truth.boxes) * (labels[:, None] == truth.labels)
    row, column = (overlap > _CLOSE_BOX).nonzero(as_tuple=True)
    return boxes[row], column


def prior_shapes(
    rois: PositiveRois, masks: torch.Tensor, truth: torch.Tensor, least_iou: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks (M, 28, 28) of 0 and 1 that the prior is made from, and their (M,) class ids.

    The true masks in the true boxes; of RoIs whose box and mask are nearly right, the mask and the
    true one in that box.

    Args:
        rois: boxes with their objects.
        masks: (P, 28, 28) bool, predicted in the boxes.
        truth: (P, 28, 28) bool, true in the boxes.
        least_iou: of a predicted mask with the true one, above which it counts; 1 for none.
    """
    objects = rois.objects
    every = [torch.arange(len(t), device=t.labels.device) for t in objects]
    ideal = PositiveRois([t.boxes for t in objects], objects, every)
    shapes, labels = [ideal.amodal(SIDE)], [ideal.labels]
    if least_iou < 1 and len(rois):
        overlaps = [
            box_iou(b, t.boxes)[torch.arange(len(b), device=b.device), m]
            for b, t, m in zip(rois.boxes, objects, rois.matched, strict=True)
        ]
        close = torch.cat(overlaps) > _CLOSE_BOX
        close &= mask_ious(masks, truth) > least_iou
        shapes += [masks[close].float(), truth[close].float()]
        labels += [rois.labels[close]] * 2
    return torch.cat(shapes), torch.cat(labels)
