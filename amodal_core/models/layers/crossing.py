"""Where a model may be cut in two, each half on a device of its own."""

from __future__ import annotations

import torch
from torch import nn


class Crossing(nn.Module):
    """Passes features on; to the second device where the model is split, see `LearnedModel.split`.

    Attributes:
        device: of the second half, None where the model is in one piece.
    """

    device: torch.device | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same features, where they are needed."""
        return x if self.device is None else x.to(self.device, non_blocking=True)
