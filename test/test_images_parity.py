"""Images, masks and windows as the originals prepare them; recorded by `record_images.py`."""

from __future__ import annotations

import zlib

import image_cases as cases
import numpy as np
import pytest
import torch

from amodal_core.datasets.truth import make_truth
from amodal_core.frame import Frame, Report
from amodal_core.masks.mask_set import RleMasks
from amodal_core.models.detections import Detections, instances_of
from amodal_core.models.eoras import Eoras
from amodal_core.models.layers.batch import MEAN, STD, make_batch
from amodal_core.models.layers.crop_windows import rescaled
from amodal_core.models.layers.resizing import input_size, resized_bytes
from amodal_core.models.layers.sam_adapter import in_image, in_square, inside, resized

RECORDED = np.load(cases.FIXTURE)


def bytes_in(image: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """The bytes (h, w, 3) that a normalised image was made of; all its values are such."""
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    values = (image[:, : size[0], : size[1]] * deviation + mean) * 255
    assert (values - values.round()).abs().max() < 1e-3
    return values.round().byte().permute(1, 2, 0).numpy()


def assert_recorded(image: np.ndarray, key: str) -> None:
    """An image is the recorded one; another build of a library may differ in single roundings."""
    assert image.shape[:2] == tuple(RECORDED[f"{key}/size"])
    if zlib.crc32(np.ascontiguousarray(image).tobytes()) != RECORDED[f"{key}/checksum"]:
        apart = np.abs(cases.sampled(image).astype(int) - RECORDED[f"{key}/pixels"])
        assert apart.max() <= 1
        assert apart.mean() < 1e-3


@pytest.mark.parametrize(
    ("how", "n"), [(how, n) for how in ("pil", "opencv") for n in range(len(cases.RESIZED[how]))]
)
def test_images_are_resized_as_by_detectron2_and_mmdetection(how, n):
    height, width, short, longest = cases.RESIZED[how][n]
    frame = Frame(0, image=cases.picture(height, width))
    batch = make_batch([frame], short_side=short, long_side=longest, resize=how)
    assert_recorded(bytes_in(batch.images[0], batch.sizes[0]), f"{how}/{n}")
    # Those bytes are not what floats give.
    floats = make_batch([frame], short_side=short, long_side=longest)
    same = batch.sizes == floats.sizes and torch.equal(batch.images, floats.images)
    assert same == (batch.sizes == [(height, width)])


def test_only_as_published_the_half_of_a_pixel_is_rounded_up():
    sizes = [input_size((10, 5), 0, 9, how) for how in ("torch", "pil", "opencv")]
    assert sizes == [(9, 4), (9, 5), (9, 5)]
    # detectron2's ResizeShortestEdge shrinks the asked side, not the image's in its ratio.
    assert input_size((29, 116), 30, 50, "pil") == (12, 50)


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((375, 1242), {}, (375, 1242)),
        ((375, 1242), {"short_side": 188}, (188, 623)),
        ((375, 1242), {"short_side": 188, "long_side": 500}, (151, 500)),
        ((375, 1242), {"short_side": 188, "long_side": 700}, (188, 623)),
        ((400, 900), {"most_pixels": 90_000}, (200, 450)),
        ((400, 900), {"short_side": 100, "most_pixels": 90_000}, (100, 225)),
        ((400, 900), {"long_side": 300, "most_pixels": 10_000}, (67, 150)),
        ((3, 900), {"long_side": 100}, (1, 100)),  # a third of a pixel is one
    ],
)
def test_an_input_keeps_its_ratio_within_every_limit(size, limits, expected):
    assert input_size(size, **{"short_side": 0, "long_side": 0} | limits) == expected


@pytest.mark.parametrize("whose", ["detectron2", "mmdetection"])
def test_masks_are_pasted_as_by_detectron2_and_mmdetection(whose):
    logits, boxes = cases.masks()
    n = len(boxes)
    zeros = torch.zeros(n)
    found = Detections(boxes, zeros, zeros.long(), logits, logits - 1, zeros)
    (height, width), (h, w) = cases.PASTED, cases.SHRUNK
    scale = torch.tensor([h / height, w / width])
    pasted = instances_of(found, cases.PASTED, scale, probabilities=True)
    count = n * height * width
    recorded = np.unpackbits(RECORDED[f"{whose}/masks"])[:count].reshape(n, height, width)
    assert (pasted.amodal.rle().dense() == recorded).all()
    if whose == "detectron2":
        np.testing.assert_allclose(pasted.amodal_boxes, RECORDED["detectron2/boxes"], rtol=1e-6)
    # Ours reach the borders of their boxes; the published ones lose up to half a cell there.
    own = instances_of(found, cases.PASTED, scale).amodal.rle()
    assert (recorded.astype(bool) & ~own.dense()).sum() < 0.01 * recorded.sum()
    assert 1.01 < own.areas().sum() / recorded.sum() < 1.2
    assert (pasted.visible.rle() - pasted.amodal.rle()).areas().sum() == 0


@pytest.mark.parametrize("n", range(len(cases.RESIZED["sam"])))
def test_images_come_into_sams_square_as_published(n):
    height, width, _, side = cases.RESIZED["sam"][n]
    image = cases.picture(height, width)
    (normalised,) = make_batch([Frame(0, image=image)]).images
    square = resized(normalised[:, :height, :width], side, "pil")
    size = inside((height, width), side)
    assert square.shape == (3, side, side)
    assert not square[:, size[0] :].any()
    assert not square[:, :, size[1] :].any()
    assert_recorded(bytes_in(square, size), f"sam/{n}")
    assert np.array_equal(bytes_in(square, size), resized_bytes(image, size, "pil"))


def test_points_and_masks_come_into_sams_square_and_out_as_published():
    points = torch.from_numpy(cases.POINTS).float()
    placed = in_square(points, (375, 1242), 1024, "pil")
    np.testing.assert_allclose(placed, RECORDED["sam/points"], rtol=1e-6)
    drawn = in_image(cases.low_masks(), (150, 499), 256, "pil")
    kept = np.stack([cases.sampled(m) for m in drawn.numpy()])
    np.testing.assert_allclose(kept, RECORDED["sam/masks"], atol=1e-5)
    # Ours are the same places but for the half pixel, and the same masks but for their smoothness.
    assert (placed - in_square(points, (375, 1242), 1024)).abs().max() < 0.5
    own = in_image(cases.low_masks(), (150, 499), 256)
    assert 0.9 < ((own > 0) == (drawn > 0)).float().mean() < 1


@pytest.mark.parametrize("n", range(len(cases.CROPS)))
def test_crops_are_those_of_eoras_code(n):
    height, width = cases.CROPS[n]
    image = torch.from_numpy(cases.picture(height, width)).permute(2, 0, 1).float() / 255
    # In a larger, padded image whose last row and column the window's last ones are.
    padded = torch.full((1, 3, height + 40, width + 30), 9.0)
    padded[0, :, 5 : 5 + height, 3 : 3 + width] = image
    window = torch.tensor([[3.0, 5, 3 + width + 1, 5 + height + 1]])
    sizes = [(5 + height, 3 + width)]
    (crop,) = rescaled(padded, sizes, torch.zeros(1, dtype=torch.int64), window, 128)
    kept = cases.sampled(crop.permute(1, 2, 0).numpy())
    np.testing.assert_allclose(kept, RECORDED[f"eoras/{n}"], atol=2e-6)


@pytest.mark.parametrize("n", range(4))
def test_masks_of_crops_come_into_the_image_as_by_eoras_code(n):
    grid, (r0, r1, c0, c1) = cases.grids()[n]
    small = {"backbone": "resnet18", "features": 16, "width": 16, "hidden": 16, "slots": 1}
    given = {"published": "movi", "classes": ["object"], "detector": ""}
    model = Eoras.from_config(small | given)
    empty = RleMasks.empty((90, 140), 1)
    drawn = model._drawn(
        make_truth(empty, empty, [0], [1]),
        torch.from_numpy(grid)[None].logit(),
        torch.tensor([[c0, r0, c1 + 1, r1 + 1]]).float(),
        Report(),
    )
    recorded = np.unpackbits(RECORDED[f"eoras/mask{n}"])[: 90 * 140].reshape(90, 140)
    assert recorded.any()
    assert (drawn.amodal.dense()[0] == recorded).all()
