"""Augmentation: image, points, calibration, masks and boxes stay the picture of one street."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as colour
from training_scenes import street

from amodal_core.frame import Calibration, Frame
from amodal_core.geometry.boxes3d import corners
from amodal_core.geometry.projection import depth_image, in_view
from amodal_core.masks.mask_set import RleMasks
from amodal_core.models.layers.batch import resize_targets, targets_of
from training.augment import augmented, cropped, flipped, resized
from training.colours import recoloured
from training.config import Augment
from training.mask_crops import CroppedTargets, MaskCrops


@pytest.fixture
def scene():
    sample = street(3)
    return sample.frame, CroppedTargets.of(sample.truth)


def pixels_of(frame, points):
    """(N, 2) u, v of (N, 3) points in the LiDAR frame, by the definition of the calibration."""
    T, K = frame.calibration.camera_from_lidar, frame.calibration.K
    camera = points @ T[:3, :3].T + T[:3, 3]
    image = camera @ K.T
    return image[:, :2] / image[:, 2:]


def on_their_objects(frame, targets):
    """Share of the points, projected, that lie on some object's mask, a pixel's rounding aside."""
    points = frame.points[in_view(frame.points, frame.calibration), :3].astype(float)
    u, v = pixels_of(frame, points).round().astype(int).T
    anywhere = torch.nn.functional.max_pool2d(
        targets.amodal.dense().any(0)[None].float(), 3, stride=1, padding=1
    )[0].numpy()
    height, width = anywhere.shape
    return anywhere[v.clip(0, height - 1), u.clip(0, width - 1)].mean()


def boxes_fit_masks(targets, tolerance):
    for box, mask in zip(targets.boxes, targets.amodal.dense(), strict=True):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.allclose(box, found, atol=tolerance), (box, found)


def test_the_scene_itself_is_consistent(scene):
    assert on_their_objects(*scene) > 0.99


def test_twice_mirrored_is_the_same(scene):
    frame, targets = flipped(*flipped(*scene))
    assert np.array_equal(frame.image, scene[0].image)
    assert np.array_equal(frame.points, scene[0].points)
    assert np.allclose(frame.calibration.K, scene[0].calibration.K)
    assert np.allclose(frame.calibration.camera_from_lidar, scene[0].calibration.camera_from_lidar)
    for name in ("boxes", "visible_boxes", "amodal", "visible", "boxes3d"):
        pair = (getattr(t.targets(), name).float() for t in (targets, scene[1]))
        assert torch.allclose(*pair), name


def test_a_mirrored_street_projects_as_the_mirrored_picture(scene):
    # A LiDAR that stands beside the camera and looks past it: its place must be mirrored, too.
    turn = cv2.Rodrigues(np.array([0.02, 0.05, -0.03]))[0]
    place = scene[0].calibration.camera_from_lidar.copy()
    place[:3] = np.column_stack([turn @ place[:3, :3], (0.3, -0.1, -0.2)])
    old = scene[0].calibration
    scene[0].calibration = Calibration(old.K, place, old.width, old.height)
    frame, targets = flipped(*scene)
    assert np.linalg.det(frame.calibration.camera_from_lidar) == pytest.approx(1)
    before = pixels_of(scene[0], scene[0].points[:, :3].astype(float))
    after = pixels_of(frame, frame.points[:, :3].astype(float))
    assert np.allclose(after[:, 0], frame.image.shape[1] - 1 - before[:, 0])
    assert np.allclose(after[:, 1], before[:, 1])
    boxes_fit_masks(targets, 1e-4)
    depth = depth_image(frame.points, frame.calibration)
    mirrored = depth_image(scene[0].points, scene[0].calibration)[:, ::-1]
    # Points on a border between pixels may round to either side.
    assert (depth == mirrored).mean() > 0.98


def test_mirrored_boxes_in_3d_are_the_mirrored_corners(scene):
    targets = replace(scene[1], boxes3d=scene[1].boxes3d.clone())
    targets.boxes3d[:, 6] = torch.linspace(-2, 2, len(targets))
    _, turned = flipped(scene[0], targets)
    expected = corners(targets.boxes3d.numpy()) * [1, -1, 1]
    found = corners(turned.boxes3d.numpy())
    for a, b in zip(expected, found, strict=True):
        nearest = np.abs(a[:, None] - b[None]).sum(-1).min(1)
        assert nearest.max() < 1e-4


@pytest.mark.parametrize("size", [(96, 144), (40, 60)])
def test_a_resized_street_projects_onto_its_masks(scene, size):
    frame, targets = resized(*scene, size)
    assert frame.image.shape[:2] == targets.amodal.size == size
    assert (frame.calibration.height, frame.calibration.width) == size
    scale = size[0] / scene[0].image.shape[0]
    # The outer corner of the first pixel, (-0.5, -0.5), is what stays in place.
    before = pixels_of(scene[0], scene[0].points[:, :3].astype(float)) + 0.5
    after = pixels_of(frame, frame.points[:, :3].astype(float)) + 0.5
    assert np.allclose(after, before * scale)
    boxes_fit_masks(targets, 1.0)


def test_a_crop_shows_its_part_and_nothing_else(scene):
    window = (20, 10, 80, 60)
    frame, targets = cropped(*scene, window)
    assert np.array_equal(frame.image, scene[0].image[10:60, 20:80])
    before = pixels_of(scene[0], scene[0].points[:, :3].astype(float))
    after = pixels_of(frame, frame.points[:, :3].astype(float))
    assert np.allclose(after, before - (20, 10))
    boxes_fit_masks(targets, 1e-4)
    part = scene[1].amodal.dense()[:, 10:60, 20:80]
    assert torch.equal(targets.amodal.dense(), part[part.flatten(1).any(1)])


def test_what_a_crop_leaves_little_of_is_ignored_and_what_it_leaves_nothing_of_goes(scene):
    frame, targets = scene
    masks = torch.zeros((3, 64, 96), dtype=torch.bool)
    masks[0, 10:20, 0:21] = True  # one column in 21 is left
    masks[1, 10:20, 30:50] = True
    masks[2, 10:20, 0:10] = True
    targets = targets.select(torch.arange(3))
    crops = MaskCrops.of(RleMasks.from_dense(masks.numpy()))
    targets = replace(targets, amodal=crops, visible=crops, ignore=torch.zeros(3, dtype=torch.bool))
    _, part = cropped(frame, targets, (20, 0, 96, 64))
    assert part.ignore.tolist() == [True, False]


@pytest.mark.parametrize(
    ("options", "mean", "deviation"),
    [
        (Augment(flip=0, tone=0.3), (64, 192), (0, 1)),  # another grey, as flat as before
        (Augment(flip=0, noise=20.0), (126, 130), (1, 21)),
        (Augment(flip=0, blur=2.0), (127, 129), (0, 1)),
    ],
)
def test_other_cameras_change_tone_and_noise_and_blur_alone(scene, options, mean, deviation):
    frame, targets = scene
    flat = replace(frame, image=np.full_like(frame.image, 128))
    changed, after = augmented(flat, targets, options, np.random.default_rng(3))
    for channel in np.moveaxis(changed.image, 2, 0):
        assert mean[0] <= channel.mean() <= mean[1]
        assert deviation[0] <= channel.std() <= deviation[1]
    assert torch.equal(after.amodal.dense(), targets.amodal.dense())
    edges = replace(frame, image=(np.indices(frame.size).sum(0) % 2 * 255)[..., None].repeat(3, 2))
    edges = replace(edges, image=edges.image.astype(np.uint8))
    sharp = augmented(edges, targets, options, np.random.default_rng(3))[0].image.std()
    assert sharp < 40 if options.blur else sharp > 80


def test_the_same_draws_make_the_same_sample_and_others_another(scene):
    options = Augment(
        flip=0.5, scale=(0.8, 1.2), crop=(64, 48), brightness=0.3, contrast=0.3, saturation=0.3,
        hue=0.1, point_dropout=0.5,
    )  # fmt: skip

    def made(seed):
        return augmented(*scene, options, np.random.default_rng(seed))

    (a, b), c = (made(1), made(1)), made(2)
    assert np.array_equal(a[0].image, b[0].image)
    assert np.array_equal(a[0].points, b[0].points)
    assert torch.equal(a[1].amodal.dense(), b[1].amodal.dense())
    assert not np.array_equal(a[0].image, c[0].image)


def test_after_every_change_at_once_points_still_fall_on_their_objects(scene):
    options = Augment(flip=0.5, short_sides=(48, 96), scale=(0.8, 1.2), crop=(80, 60))
    for seed in range(20):
        frame, targets = augmented(*scene, options, np.random.default_rng(seed))
        assert frame.image.shape[0] <= 60
        assert frame.image.shape[1] <= 80
        assert on_their_objects(frame, targets) > 0.97, seed


def test_an_image_alone_and_no_objects_are_changed_too(scene):
    frame, targets = Frame(1, image=scene[0].image), scene[1].select(torch.zeros(0).long())
    options = Augment(flip=1.0, scale=(0.5, 0.5), crop=(30, 20), point_dropout=0.5)
    frame, targets = augmented(frame, targets, options, np.random.default_rng(0))
    assert frame.image.shape == (20, 30, 3)
    assert frame.points is None
    assert targets.amodal.dense().shape == (0, 20, 30)


@pytest.mark.parametrize("size", [(1, 1), (37, 11), (188, 621), (301, 999)])
def test_masks_are_resized_to_the_pixel_that_each_centre_falls_into(scene, size):
    targets = scene[1].targets()
    targets.amodal[0] = False  # nothing of it is there
    height, width = targets.amodal.shape[1:]
    made = resize_targets(targets, size)
    rows = np.floor((np.arange(size[0]) + 0.5) * height / size[0]).astype(int)
    columns = np.floor((np.arange(size[1]) + 0.5) * width / size[1]).astype(int)
    for before, after in ((targets.amodal, made.amodal), (targets.visible, made.visible)):
        assert np.array_equal(after.numpy(), before.numpy()[:, rows][:, :, columns])
    assert made.ignore[0]


@pytest.mark.parametrize("window", [(0, 0, 60, 40), (7, 9, 33, 31), (55, 3, 60, 5)])
def test_crops_of_masks_are_changed_as_the_whole_masks_are(window):
    sample = street(3)
    x0, y0, x1, y1 = window
    uncropped = targets_of(sample.truth).select(torch.tensor([2, 0, 1]))
    crops = CroppedTargets.of(sample.truth).select(torch.tensor([2, 0, 1]))
    small = resize_targets(replace(uncropped, amodal=uncropped.amodal.flip(2)), (40, 60)).amodal
    expected = small[:, y0:y1, x0:x1]
    made = crops.amodal.mirrored().resized((40, 60)).cut(window)
    assert torch.equal(made.dense(), expected)
    assert torch.equal(made.areas(), expected.flatten(1).sum(1))
    assert all(torch.equal(getattr(crops.targets(), k), v) for k, v in vars(uncropped).items())


@pytest.mark.parametrize(
    "options",
    [
        Augment(brightness=0.9),
        Augment(contrast=0.9),
        Augment(saturation=0.9),
        Augment(hue=0.5),
        Augment(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
    ],
)
def test_colours_change_to_the_byte_as_torchvisions(options, rng):
    image = rng.integers(0, 256, (37, 83, 3), dtype=np.uint8)
    image[:12] = image[:12, :, :1]  # greys
    for seed in range(4):
        made = recoloured(image, options, np.random.default_rng(seed))
        draw, expected = np.random.default_rng(seed), torch.from_numpy(image).permute(2, 0, 1)
        for name in ("brightness", "contrast", "saturation"):
            if amount := getattr(options, name):
                change = getattr(colour, f"adjust_{name}")
                expected = change(expected, draw.uniform(1 - amount, 1 + amount))
        if options.hue:
            expected = colour.adjust_hue(expected, draw.uniform(-options.hue, options.hue))
        assert np.array_equal(made, expected.permute(1, 2, 0).numpy())
