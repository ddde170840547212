"""How high returns lie reaches the flagship's LiDAR branch, exact and only where it is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from amodal_core.frame import Calibration, Frame
from amodal_core.geometry.projection import depth_image
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.flagship import Flagship, FlagshipConfig
from amodal_core.models.layers.batch import Batch, make_batch
from amodal_core.models.layers.inputs import TALLEST, network_inputs
from amodal_core.models.layers.lidar_branch import LidarBranch
from training.setup import begin_with

SIZE = (96, 160)
PITCH = np.radians(4)


def camera(pitch: float = PITCH, scale: float = 1.0) -> Calibration:
    """Looks along the LiDAR's x, bent down by a pitch, and stands in the LiDAR's place."""
    c, s = np.cos(pitch), np.sin(pitch)
    camera_from_lidar = np.eye(4)
    camera_from_lidar[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array(
        [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    )
    K = np.array([[120.0, 0, 80], [0, 120, 40], [0, 0, 1]])
    return Calibration(K, camera_from_lidar, SIZE[1], SIZE[0])


def frame(points: np.ndarray, calibration: Calibration | None) -> Frame:
    image = np.zeros((*SIZE, 3), np.uint8)
    return Frame(0, image, points, depth_image(points, camera()), calibration)


def wall(distance: float) -> np.ndarray:
    """Returns on a plane across the view, from 1.6 m below the scanner to 2.4 m above it."""
    z, y = np.meshgrid(np.linspace(-1.6, 2.4, 41), np.linspace(-8, 8, 81))
    x = np.full(z.size, distance)
    return np.stack([x, y.ravel(), z.ravel(), x * 0], 1).astype(np.float32)


@pytest.mark.parametrize("most_pixels", [0, 6000])
def test_heights_are_the_points_own(most_pixels: int) -> None:
    points = wall(20.0)
    batch = make_batch([frame(points, camera())], most_pixels=most_pixels)
    assert batch.heights is not None
    assert batch.depth is not None
    given = network_inputs(frame(points, camera()), 0, 0, "torch", most_pixels)
    np.testing.assert_allclose(given.heights, batch.heights, atol=1e-6)
    # A row at this scale is 20 m / focal length high; a point lies half a row from its pixel.
    rows = batch.sizes[0][0] / SIZE[0]
    row = 20 / (120 * rows)
    T = camera().camera_from_lidar
    at = points[:, :3].astype(float) @ T[:3, :3].T @ camera().K.T
    u, v = np.rint((at[:, :2] / at[:, 2:] + 0.5) * rows - 0.5).astype(int).T
    h, w = batch.sizes[0]
    inside = (u >= 0) & (u < w) & (v >= 0) & (v < h)
    heights = batch.heights[0, 0].numpy()[v[inside], u[inside]] * TALLEST
    known = batch.depth[0, 1].numpy()[v[inside], u[inside]] > 0
    assert known.mean() > 0.9
    errors = (heights - points[inside, 2])[known]
    assert np.abs(errors).max() < 1.2 * row
    assert abs(np.median(errors)) < 0.2 * row


def test_they_are_zero_where_nothing_is_known() -> None:
    points = wall(20.0)
    batch = make_batch([frame(points, camera())])
    assert batch.heights is not None
    assert batch.depth is not None
    assert not batch.heights[batch.depth[:, 1:] == 0].any()
    assert not make_batch([frame(points, None)]).heights.any()
    blind = Frame(0, np.zeros((*SIZE, 3), np.uint8), calibration=camera())
    assert make_batch([blind]).heights is None
    assert network_inputs(blind, 0, 0, "torch", 0).heights is None


def cells_of(branch: LidarBranch, batch: Batch) -> torch.Tensor:
    """What the branch's first convolution is given."""
    seen: list[torch.Tensor] = []
    first = branch.layers[0][0].convs[0]
    hook = first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    branch(batch.depth, torch.float32, batch.heights)
    hook.remove()
    return seen[0]


def test_a_cell_has_the_mean_height_of_its_returns() -> None:
    batch = make_batch([frame(wall(20.0), camera())])
    assert batch.depth is not None
    assert batch.heights is not None
    cells = cells_of(LidarBranch((4, 4, 4), heights=True).eval(), batch)
    valid = batch.depth[0, 1].unfold(0, 4, 4).unfold(1, 4, 4).flatten(2)
    heights = batch.heights[0, 0].unfold(0, 4, 4).unfold(1, 4, 4).flatten(2)
    expected = heights.sum(2) / valid.sum(2).clamp(min=1)
    torch.testing.assert_close(cells[0, 4], expected)
    assert expected.abs().max() > 0.3


def test_in_training_cameras_stand_higher_and_lower_and_some_are_unknown() -> None:
    one = frame(wall(20.0), camera())
    batch = make_batch([one] * 60)
    torch.manual_seed(0)
    branch = LidarBranch((4, 4, 4), heights=True)
    exact, changed = cells_of(branch.eval(), batch), cells_of(branch.train(), batch)
    assert torch.equal(exact[:, :4], changed[:, :4])
    there = exact[0, 3] > 0
    assert not changed[:, 4][:, ~there].any()
    unknown = [not row[4].any() for row in changed]
    assert 2 <= sum(unknown) <= 14  # a tenth of 60
    moves = [
        (row[4] - exact[0, 4])[there]
        for row, gone in zip(changed, unknown, strict=True)
        if not gone
    ]
    assert all(move.max() - move.min() < 1e-5 for move in moves)  # the whole image by the same
    shifts = torch.stack([move.mean() for move in moves]) * TALLEST
    assert shifts.abs().max() < 0.4001
    assert shifts.min() < -0.25
    assert shifts.max() > 0.25


def test_a_run_with_them_begins_with_weights_that_never_saw_them(tmp_path: Path) -> None:
    before = Flagship(FlagshipConfig.nanodet(("car",), heights=False)).eval()
    path = str(tmp_path / "before.safetensors")
    save_checkpoint(path, before, CheckpointInfo("flagship", before.config_json(), ("car",)))
    model = Flagship(FlagshipConfig.nanodet(("car",))).eval()
    count = len(model.state_dict())
    assert begin_with(model, path).startswith(f"{count} of {count} tensors")
    batch = make_batch([frame(wall(20.0), camera())])
    with torch.no_grad():
        now = model._see(batch.images, batch.depth, batch.heights)[1]
        torch.testing.assert_close(now, before._see(batch.images, batch.depth)[1])


def test_what_it_sees_depends_on_them_and_without_a_calibration_it_goes_on() -> None:
    torch.manual_seed(0)
    model = Flagship(FlagshipConfig.nanodet(("car",))).eval()
    with torch.no_grad():
        known, other, unknown = (
            model._see(b.images, b.depth, b.heights)[1]
            for b in (
                make_batch([frame(wall(20.0), c)]) for c in (camera(), camera(2 * PITCH), None)
            )
        )
    assert (known - other).abs().max() > 1e-4
    assert unknown.isfinite().all()
