"""Which anchor learns which object: by overlap, and no object without an anchor of its own."""

from __future__ import annotations

import torch
from torchvision.models.detection._utils import Matcher


class AnchorMatcher(Matcher):
    """Faster R-CNN's rule, under which the anchors that fit an object best are the object's.

    torchvision gives them to whatever object *they* fit best. A small or narrow object, which no
    anchor fits well, then leaves them all to larger neighbours and is never proposed. An anchor
    that fits another object to the upper threshold remains that one's.
    """

    def set_low_quality_matches_(
        self,
        matches: torch.Tensor,
        all_matches: torch.Tensor,
        match_quality_matrix: torch.Tensor,
    ) -> None:
        """Give objects the anchors that fit them best, in place.

        Args:
            matches: (A,) int64 object of each anchor, negative where none fits well enough.
            all_matches: (A,) int64 object that each anchor fits best, however well.
            match_quality_matrix: (N, A) overlaps.
        """
        best = match_quality_matrix.amax(1, keepdim=True)
        # Of several objects whose best anchor it is, the one that it fits best.
        overlap, owner = torch.where(match_quality_matrix == best, match_quality_matrix, 0.0).max(0)
        matches.copy_(torch.where((matches < 0) & (overlap > 0), owner, matches))
