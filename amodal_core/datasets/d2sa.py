"""D2SA: amodal annotations of MVTec's densely segmented supermarket, 60 products.

`D2S_amodal_{training_rot0,augmented,validation}.json` are COCO with `visible_mask` (RLE) and
`occlude_rate` beside the amodal `segmentation`; the images come in an archive of their own.

Follmann et al.: Learning to See the Invisible, WACV 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from amodal_core.datasets.coco_like import CocoLike


class D2sa(CocoLike):
    """One JSON file of D2SA."""

    format = "d2sa"

    def _folders(self) -> Iterator[Path]:
        yield self.path.parent.parent / "d2s_amodal_images_v1" / "images"
        yield from super()._folders()
