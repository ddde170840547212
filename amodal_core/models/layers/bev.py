"""From a crop's features to a bird's-eye view: each cell of space looks where it falls in the crop.

The grid hangs in the camera's optical frame (x right, y down, z forward, metres). A point goes by K
to the whole image's pixels, from there by the window into the crop (`crop_places`). The published
code looks the point up as if the crop were the whole image (`image_places`); with KITTI's K, which
is in pixels, nearly all samples then fall outside and read zeros.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

X, Y, Z = (-10.0, 10.0), (-3.5, 1.5), (0.0, 20.0)  # metres
LAYERS = 5  # of the grid along y
_NEAREST = 0.05  # metres; nearer points, and those behind the camera, are nowhere in the image
_OUTSIDE = -2.0  # of a crop, whose coordinates go from -1 to 1
Published = Literal["", "movi", "kitti"]  # whose published weights are to be fed as they were


def grid_points(cells: int, pitch: float) -> torch.Tensor:
    """(5, cells, cells, 3) float32: middles of the grid's cells along y, z and x, in metres.

    Args:
        cells: along x and along z.
        pitch: radians that the camera looks down. The grid stays level.
    """

    def middles(low_high: tuple[float, float], count: int) -> torch.Tensor:
        low, high = low_high
        return low + (torch.arange(count, dtype=torch.float64) + 0.5) * ((high - low) / count)

    y, z, x = torch.meshgrid(
        middles(Y, LAYERS), middles(Z, cells), middles(X, cells), indexing="ij"
    )
    cos, sin = math.cos(pitch), math.sin(pitch)
    # What lies ahead on the level appears higher up in a camera that looks down.
    return torch.stack([x, cos * y - sin * z, sin * y + cos * z], -1).float()


def crop_places(
    points: torch.Tensor, intrinsics: torch.Tensor, scales: torch.Tensor, windows: torch.Tensor
) -> torch.Tensor:
    """Where points of space fall in crops.

    Args:
        points: (M, 3) float32, optical frame, metres.
        intrinsics: (N, 3, 3) float32, K of each crop's image at its original size; integer pixel
            coordinates are pixel centres.
        scales: (N, 2) float32, y and x scale from the original size to that of the windows.
        windows: (N, 4) float32 xyxy.

    Returns:
        (N, M, 2) float32 x and y, -1 to 1 from edge to edge of the crop, as grid_sample takes them
        without aligned corners; beyond where a point falls outside or behind the camera.
    """
    # Products and sums, not matmul: mixed precision would round pixels.
    rows = [(intrinsics[:, None, k] * points).sum(-1) for k in range(3)]
    depth = rows[2]
    ahead = depth > _NEAREST
    depth = torch.where(ahead, depth, 1.0)
    places = []
    for k in range(2):
        edge = (rows[k] / depth + 0.5) * scales[:, 1 - k, None]
        low, high = windows[:, k, None], windows[:, 2 + k, None]
        places.append(torch.where(ahead, (edge - low) / (high - low) * 2 - 1, _OUTSIDE))
    return torch.stack(places, -1)


def image_places(
    points: torch.Tensor, intrinsics: torch.Tensor, sizes: torch.Tensor, published: Published
) -> torch.Tensor:
    """Where the published code looks points up in crops: at their share of the whole image.

    Args:
        points: (M, 3) float32, optical frame, metres.
        intrinsics: (N, 3, 3) float32, as `crop_places` has them.
        sizes: (N, 2) float32 height and width of each crop's image.
        published: "movi": K in shares of the image, for a camera that looks along -z, so that the
            grid stands before it as in a mirror; "kitti": K in pixels, taken for shares.

    Returns:
        (N, M, 2) float32 x and y, -1 to 1 from the first to the last cell of the crop, as
        grid_sample takes them with aligned corners. Points behind the camera are not left out.
    """
    x, y, depth = ((intrinsics[:, None, k] * points).sum(-1) for k in range(3))
    across, down = x / depth, y / depth
    if published == "movi":
        across = 1 - (across + 0.5) / sizes[:, 1, None]
        down = (down + 0.5) / sizes[:, 0, None]
    return torch.stack([across, down], -1) * 2 - 1


class BirdsEyeView(nn.Module):
    """A crop's features from above, a quarter of the grid's resolution.

    Args:
        channels: of the crop's features and of the result.
        cells: of the grid along x and along z, a multiple of 4.
        pitch: degrees that a camera in a fixed place looks down.
        published: "" to look where a cell falls into the crop, else see `image_places`.
    """

    points: torch.Tensor

    def __init__(
        self, channels: int, cells: int, pitch: float = 0.0, published: Published = ""
    ) -> None:
        super().__init__()
        self.published = published
        points = grid_points(cells, math.radians(pitch)).flatten(0, 2)
        self.register_buffer("points", points, persistent=False)
        self.cells = cells
        middle = channels * LAYERS // 2
        self.layers = nn.Sequential(_stage(channels * LAYERS, middle), _stage(middle, channels))

    def lift(
        self,
        features: torch.Tensor,
        intrinsics: torch.Tensor,
        sizes: torch.Tensor,
        scales: torch.Tensor,
        windows: torch.Tensor,
    ) -> torch.Tensor:
        """(N, C * 5, cells, cells): features at the grid's cells, rows away from the camera.

        Zeros where a cell does not fall into the crop. Arguments as `forward`.
        """
        if self.published:
            places = image_places(self.points, intrinsics, sizes, self.published)
        else:
            places = crop_places(self.points, intrinsics, scales, windows)
        places = places.unflatten(1, (LAYERS * self.cells, self.cells))
        sampled = F.grid_sample(features.float(), places, align_corners=bool(self.published))
        return sampled.to(features.dtype).unflatten(2, (LAYERS, self.cells)).flatten(1, 2)

    def forward(
        self,
        features: torch.Tensor,
        intrinsics: torch.Tensor,
        sizes: torch.Tensor,
        scales: torch.Tensor,
        windows: torch.Tensor,
    ) -> torch.Tensor:
        """From above.

        Args:
            features: (N, C, S, S) of the crops.
            intrinsics: (N, 3, 3) float32, see `crop_places`.
            sizes: (N, 2) float32, height and width of the images that they are of.
            scales: (N, 2) float32, see there.
            windows: (N, 4) float32, see there.

        Returns:
            (N, C, cells / 4, cells / 4).
        """
        out: torch.Tensor = self.layers(self.lift(features, intrinsics, sizes, scales, windows))
        return out


def _stage(channels: int, wide: int) -> nn.Sequential:
    """Fewer channels, then half the resolution; each convolution with its norm and activation."""
    layers: list[nn.Module] = []
    for convolution in (
        nn.Conv2d(channels, wide, 1),
        nn.Conv2d(wide, wide, 3, padding=1),
        nn.Conv2d(wide, wide, 3, stride=2, padding=1),
    ):
        layers += [convolution, nn.BatchNorm2d(wide), nn.LeakyReLU(inplace=True)]
    return nn.Sequential(*layers)
