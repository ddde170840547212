"""Points to pillars to a bird's-eye image, vectorised; no compiled extension.

Lang et al., "PointPillars", CVPR 2019, in the arrangements of the public implementations so that
their weights fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from amodal_core.settings import Positive, Size, settings_type

_EPS, _MOMENTUM = 1e-3, 0.01  # of every norm, as in the public weights


@settings_type
class Grid:
    """The volume that is looked at and its cells.

    Attributes:
        low: x, y, z in metres, LiDAR frame.
        high: x, y, z in metres.
        cell: size of a pillar in x and y.
        most_points: kept of a pillar.
        most_pillars: kept of a scan in inference; in training `most_pillars_train`.
        most_pillars_train: see there.
    """

    low: tuple[float, float, float] = (0.0, -39.68, -3.0)
    high: tuple[float, float, float] = (69.12, 39.68, 1.0)
    cell: Size = 0.16
    most_points: Positive = 32
    most_pillars: Positive = 40_000
    most_pillars_train: Positive = 16_000

    @property
    def size(self) -> tuple[int, int]:
        """(columns along x, rows along y)."""
        return (
            round((self.high[0] - self.low[0]) / self.cell),
            round((self.high[1] - self.low[1]) / self.cell),
        )


@settings_type
class PointFeatures:
    """What the network is told of a point.

    These in turn: its coordinates, its intensity, its offset to the mean of its pillar's points,
    its offset to the pillar's centre, its distance from the sensor.

    Attributes:
        xyz: the coordinates; in their place again the offset to the centre ("legacy", as
            mmdetection3d and its descendants are trained), or none (OpenPCDet's USE_ABSLOTE_XYZ).
        voxel_center: the axes of the offset to the centre; z where the pillar's middle height
            counts, too (mmdetection3d 1.x, OpenPCDet).
        with_distance: the distance too; in mmdetection3d's form that of the offsets in the place of
            the coordinates.
    """

    xyz: Literal["absolute", "legacy", "none"] = "legacy"
    voxel_center: Literal["xy", "xyz"] = "xy"
    with_distance: bool = False

    @property
    def width(self) -> int:
        """Numbers of a point."""
        own = 0 if self.xyz == "none" else 3
        return own + 4 + len(self.voxel_center) + self.with_distance


@dataclass
class Pillars:
    """The pillars of B scans in a row.

    Attributes:
        points: (P, most_points, 4) float32 x, y, z, intensity; zeros where a pillar has fewer.
        counts: (P,) int64 points of each.
        scan: (P,) int64 which scan.
        column: (P,) int64 place along x.
        row: (P,) int64 place along y.
    """

    points: torch.Tensor
    counts: torch.Tensor
    scan: torch.Tensor
    column: torch.Tensor
    row: torch.Tensor


def pillars_of(scans: list[torch.Tensor], grid: Grid, training: bool) -> Pillars:
    """Sort the points of each scan into pillars.

    A pillar keeps the first points that fall into it, a scan the pillars that its points reach
    first, both in the order of the scan.

    Args:
        scans: (N, 4) float32 x, y, z, intensity each; may be empty.
        grid: the volume.
        training: keep the training number of pillars.
    """
    columns, rows = grid.size
    most = grid.most_pillars_train if training else grid.most_pillars
    device = scans[0].device
    low = torch.tensor(grid.low, device=device)
    high = torch.tensor(grid.high, device=device)
    parts = []
    for number, scan in enumerate(scans):
        inside = ((scan[:, :3] >= low) & (scan[:, :3] < high)).all(1)
        scan = scan[inside]
        place = ((scan[:, :2] - low[:2]) / grid.cell).long()
        place = torch.minimum(place, place.new_tensor([columns - 1, rows - 1]))
        key, index = torch.unique(place[:, 1] * columns + place[:, 0], return_inverse=True)
        n = len(key)
        first = torch.full((n,), len(scan), device=device).scatter_reduce(
            0, index, torch.arange(len(scan), device=device), "amin"
        )
        # Pillars in the order in which the scan reaches them.
        order = torch.argsort(first)
        turn = torch.empty_like(order)
        turn[order] = torch.arange(n, device=device)
        index = turn[index]
        key = key[order][:most]
        by_pillar = torch.argsort(index, stable=True)
        sorted_index = index[by_pillar]
        begin = torch.searchsorted(sorted_index, torch.arange(n, device=device))
        rank = torch.arange(len(scan), device=device) - begin[sorted_index]
        kept = (rank < grid.most_points) & (sorted_index < most)
        points = scan.new_zeros((len(key), grid.most_points, 4))
        points[sorted_index[kept], rank[kept]] = scan[by_pillar[kept], :4]
        counts = torch.bincount(sorted_index[kept], minlength=len(key))
        parts.append((points, counts, torch.full_like(key, number), key % columns, key // columns))
    return Pillars(*(torch.cat(p) for p in zip(*parts, strict=True)))


class PillarEncoder(nn.Module):
    """Pillars to a bird's-eye image of 64 channels.

    Args:
        grid: the volume.
        features: of a point.
        channels: of the image.
    """

    def __init__(self, grid: Grid, features: PointFeatures, channels: int = 64) -> None:
        super().__init__()
        self.grid = grid
        self.features = features
        self.channels = channels
        self.conv = nn.Conv1d(features.width, channels, 1, bias=False)
        self.bn = nn.BatchNorm1d(channels, _EPS, _MOMENTUM)

    def _features(self, pillars: Pillars) -> torch.Tensor:
        """(P, most_points, width), zeros where a pillar has no more points."""
        points = pillars.points
        filled = torch.arange(points.shape[1], device=points.device) < pillars.counts[:, None]
        xyz = points[..., :3]
        mean = xyz.sum(1, keepdim=True) / pillars.counts[:, None, None]
        place = torch.stack([pillars.column, pillars.row], 1).to(points.dtype)
        low = torch.tensor(self.grid.low[:2], device=points.device)
        centre = low + (place + 0.5) * self.grid.cell
        if self.features.voxel_center == "xyz":
            middle = (self.grid.low[2] + self.grid.high[2]) / 2
            centre = torch.cat([centre, torch.full_like(centre[:, :1], middle)], 1)
        axes = centre.shape[1]
        to_centre = xyz[..., :axes] - centre[:, None]
        own = torch.cat([to_centre, xyz[..., axes:]], -1) if self.features.xyz == "legacy" else xyz
        groups = [points[..., 3:], xyz - mean, to_centre]
        if self.features.xyz != "none":
            groups.insert(0, own)
        if self.features.with_distance:
            groups.append(own.norm(dim=-1, keepdim=True))
        return torch.cat(groups, dim=-1) * filled[..., None]

    def forward(self, pillars: Pillars, scans: int) -> torch.Tensor:
        """(scans, channels, rows, columns); zeros where no point falls."""
        columns, rows = self.grid.size
        canvas = self.conv.weight.new_zeros((scans, rows, columns, self.channels))
        # Processes that train together wait for each other's statistics, be they of nothing.
        if len(pillars.counts) or isinstance(self.bn, nn.SyncBatchNorm):
            features = self._features(pillars)
            encoded = self.bn(self.conv(features.transpose(1, 2))).relu().amax(2)
            canvas[pillars.scan, pillars.row, pillars.column] = encoded.to(canvas.dtype)
        else:  # and for a gradient of every weight, be it zero
            canvas = canvas + 0 * torch.stack([p.sum() for p in self.parameters()]).sum()
        return canvas.permute(0, 3, 1, 2).contiguous()


def stage(inputs: int, outputs: int, repeats: int) -> nn.Sequential:
    """A 3x3 stride-2 convolution, then `repeats` more, each with norm and ReLU."""
    layers: list[nn.Module] = []
    for number in range(repeats + 1):
        stride = 2 if number == 0 else 1
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs, _EPS, _MOMENTUM),
            nn.ReLU(inplace=True),
        ]
        nn.init.kaiming_normal_(layers[-3].weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
        inputs = outputs
    return nn.Sequential(*layers)


def upsampling(inputs: int, outputs: int, factor: int) -> nn.Sequential:
    """A deconvolution by `factor` with norm and ReLU."""
    layer = nn.ConvTranspose2d(inputs, outputs, factor, stride=factor, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(outputs, _EPS, _MOMENTUM), nn.ReLU(inplace=True))
