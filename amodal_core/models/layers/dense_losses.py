"""Losses of single-stage models; each is finite, and a zero with a gradient, for nothing at all."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_TEMPERATURE = 0.1


def quality_focal(
    logits: torch.Tensor, quality: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Focal loss towards a quality between 0 and 1 (Li et al. 2020), over the sum of qualities.

    Args:
        logits: (B, A, classes).
        quality: (B, A, classes) float, 0-1.
        weight: (B, A) float, 0 for locations that learn nothing.
    """
    error = (torch.sigmoid(logits) - quality).abs() ** 2
    loss = error * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return (loss.sum(-1) * weight).sum() / quality.sum().clamp(min=1)


def mask_losses(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy plus dice loss of each mask.

    Args:
        logits: (N, S, S).
        truth: (N, S, S) float 0/1; may be empty masks.

    Returns:
        (N,) losses.
    """
    logits, truth = logits.flatten(1).float(), truth.flatten(1)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
    share = torch.sigmoid(logits)
    # The 1 makes an empty prediction of an empty mask right.
    shared = 2 * (share * truth).sum(1) + 1
    dice = 1 - shared / (share.square().sum(1) + truth.sum(1) + 1)
    return entropy + dice


def contrastive(embeddings: torch.Tensor, identities: torch.Tensor) -> torch.Tensor:
    """Supervised contrastive loss (Khosla et al. 2020): alike for one identity, apart for others.

    Args:
        embeddings: (N, D) of unit length.
        identities: (N,) int64.

    Returns:
        The mean over those that have a partner and something to differ from.
    """
    n = len(embeddings)
    if n == 0:
        return embeddings.sum()
    others = ~torch.eye(n, dtype=torch.bool, device=embeddings.device)
    same = (identities[:, None] == identities) & others
    alike = (embeddings @ embeddings.t()).float() / _TEMPERATURE
    # Not -inf: a row without others must stay finite.
    chance = F.log_softmax(alike.masked_fill(~others, -1e4), dim=1)
    partners = same.sum(1)
    counts = (partners > 0) & (partners < n - 1)
    each = -(chance * same).sum(1) / partners.clamp(min=1)
    return (each * counts).sum() / counts.sum().clamp(min=1)
