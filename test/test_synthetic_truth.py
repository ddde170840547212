"""The truth of synthetic drives is exact: masks, LiDAR, boxes, depth and identities agree."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_drives import SIZE, cast_pixels, urban_drive, urban_frames

from amodal_core.datasets.truth import make_truth
from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.synthetic.frames import DEPTH_SCALE, SyntheticFrame
from amodal_core.synthetic.lidar import LidarOptions, scan
from amodal_core.synthetic.lidar import _sensor_poses as sensor_poses
from amodal_core.synthetic.render import shelves
from amodal_core.synthetic.statistics import Statistics
from amodal_core.synthetic.truth import CLASSES, Annotator


def projected(made: SyntheticFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the points in the image: index, pixel (u, v) and depth."""
    calibration = made.frame.calibration
    assert calibration is not None
    assert made.frame.points is not None
    ahead = made.frame.points[:, :3] @ calibration.camera_from_lidar[:3, :3].T
    ahead = ahead + calibration.camera_from_lidar[:3, 3]
    pixels = ahead @ calibration.K.T
    with np.errstate(divide="ignore", invalid="ignore"):
        uv = np.rint(pixels[:, :2] / pixels[:, 2:])
    inside = (ahead[:, 2] > 0.5) & (uv >= 0).all(axis=1) & (uv < SIZE).all(axis=1)
    return np.flatnonzero(inside), uv[inside].astype(int), ahead[inside, 2]


def test_rasteriser_and_ray_caster_agree_on_ids_and_depth() -> None:
    drive, rig = urban_drive(), urban_drive()._rig
    rendered = drive._renderer.frame(1)
    v, u = np.mgrid[: rig.height, : rig.width]
    pixels = np.stack([u.ravel(), v.ravel()], axis=1).astype(float)
    ids, depth = cast_pixels(drive._caster, 1, rig.K, rig.camera_from_lidar, pixels)
    same = ids == rendered.labels.ravel()
    assert same.mean() > 0.9995
    both = same & (depth > 0) & (rendered.depth.ravel() > 0)
    assert both.mean() > 0.5
    wrong = np.abs(depth - rendered.depth.ravel())[both]
    assert np.percentile(wrong, 99) < 0.01


def test_no_visible_pixel_lies_outside_its_object() -> None:
    rendered = urban_drive()._renderer.frame(0)
    outside = 0
    for number in np.unique(rendered.labels[rendered.labels > 0]).tolist():
        x, y, patch = rendered.amodal[number]
        seen = rendered.labels == number
        whole = np.zeros_like(seen)
        whole[y : y + patch.shape[0], x : x + patch.shape[1]] = patch > 0
        outside += int((seen & ~whole).sum())
    assert outside == 0
    for made in urban_frames():
        truth = made.truth
        assert len(truth.ids) > 10
        assert not (truth.visible - truth.amodal).areas().any()
        assert truth.visible.dense().sum(axis=0).max() <= 1


def test_the_nearest_object_at_a_pixel_is_the_one_that_is_seen() -> None:
    rendered = urban_drive()._renderer.frame(0)
    nearest = np.full(rendered.labels.shape, np.inf)
    owner = np.zeros(rendered.labels.shape, int)
    for number, (x, y, patch) in rendered.amodal.items():
        part = (slice(y, y + patch.shape[0]), slice(x, x + patch.shape[1]))
        closer = (patch > 0) & (patch < nearest[part])
        nearest[part][closer] = patch[closer]
        owner[part][closer] = number
    seen = rendered.labels > 0
    assert (owner[seen] == rendered.labels[seen]).mean() > 0.9999
    # where no object is seen although one is there, scenery stands in front of it
    hidden = (~seen) & (owner > 0)
    assert (rendered.depth[hidden] <= nearest[hidden] + 1e-3).mean() > 0.999


def test_points_on_objects_lie_in_their_masks() -> None:
    agree = inside = 0
    for made in urban_frames():
        index, uv, depth = projected(made)
        labels = np.zeros((SIZE[1], SIZE[0]), int)
        for number, mask in zip(made.truth.ids, made.truth.visible.dense(), strict=True):
            labels[mask] = number
        image_depth = made.depth[uv[:, 1], uv[:, 0]] / DEPTH_SCALE
        # the LiDAR looks over things that hide from the camera what it hits: compare one surface
        same_surface = np.abs(image_depth - depth) < 0.25 + 0.02 * depth
        ids = made.point_ids[index]
        on_object = (ids > 0) & same_surface
        agree += int((labels[uv[:, 1], uv[:, 0]] == ids)[on_object].sum())
        inside += int(on_object.sum())
    assert inside > 500
    assert agree / inside >= 0.99


def test_points_of_an_object_lie_in_its_3d_box() -> None:
    made = urban_frames()[0]
    assert made.frame.points is not None
    inside = total = 0
    for number, box in zip(made.truth.ids.tolist(), made.truth.boxes3d, strict=True):
        points = made.frame.points[made.point_ids == number, :3] - box[:3]
        c, s = np.cos(box[6]), np.sin(box[6])
        local = np.stack([points @ [c, s, 0], points @ [-s, c, 0], points[:, 2]], axis=1)
        # mirrors and antennas stand out of a box by its definition, noise by its nature
        inside += int((np.abs(local) < box[3:6] / 2 + 0.15).all(axis=1).sum())
        total += len(points)
    assert total > 500
    assert inside / total > 0.98


def test_depth_of_the_image_is_that_of_the_points() -> None:
    made = urban_frames()[0]
    index, uv, depth = projected(made)
    image_depth = made.depth[uv[:, 1], uv[:, 0]] / DEPTH_SCALE
    difference = np.abs(image_depth - depth)
    assert np.median(difference) < 0.05
    assert (difference < 0.5 + 0.03 * depth).mean() > 0.9
    assert len(index) > 2000


def test_picture_shows_what_the_labels_say() -> None:
    made = urban_frames()[0]
    assert made.frame.image is not None
    assert made.frame.image.shape == (SIZE[1], SIZE[0], 3)
    sky = made.depth == 0
    assert made.frame.image[sky].mean() > 1.5 * made.frame.image[~sky].mean()
    assert 30 < made.frame.image.mean() < 170


def truth_of(*objects: tuple[int, int, int]) -> Tracks:
    """Objects (id, amodal columns, visible columns) as bars in a 100 x 1242 image."""
    whole = np.zeros((len(objects), 100, 1242), bool)
    seen = np.zeros_like(whole)
    for k, (_, width, visible) in enumerate(objects):
        whole[k, 10 * k : 10 * k + 10, :width] = True
        seen[k, 10 * k : 10 * k + 10, :visible] = True
    masks = RleMasks.from_dense(whole), RleMasks.from_dense(seen)
    return make_truth(*masks, [0] * len(objects), [o[0] for o in objects])


def test_a_track_begins_when_seen_and_lasts_through_full_occlusion() -> None:
    annotator, counts = Annotator(), Statistics()
    counts.begin("urban", "sun")
    frames = [truth_of((7, 50, v), (9, 50, 0)) for v in (0, 30, 0, 0, 40)]
    tracks = [annotator.tracks(t) for t in frames]
    for t in tracks:
        counts.add(t)
    again = Annotator()  # a run that goes on reads what it wrote
    for t in tracks:
        assert again.tracks(t).ages.tolist() == t.ages.tolist()
    assert again == annotator
    assert [t.ids.tolist() for t in tracks] == [[], [7], [7], [7], [7]]
    assert [t.ages.tolist() for t in tracks[1:]] == [[1], [2], [3], [4]]
    assert tracks[2].occlusion_rates.tolist() == [1.0]
    assert tracks[2].visible_boxes.tolist() == [[0, 0, 0, 0]]
    assert tracks[1].occlusion_rates[0] == pytest.approx(0.4)
    assert counts.reappearances == 1
    assert counts.tracks == 1
    assert counts.instances == 4
    assert counts.share_over(0.25) == 0.75
    assert counts.share_over(0.5) == 0.5


def test_specks_and_what_was_never_recognisable_are_not_annotated() -> None:
    annotator = Annotator()
    assert annotator.tracks(truth_of((1, 3, 3), (2, 100, 10), (3, 20, 20))).ids.tolist() == [3]


def test_sheets_of_the_atlas_never_overlap() -> None:
    rng = np.random.default_rng(0)
    sizes = [(int(w), int(h)) for w, h in rng.integers(1, 100, (80, 2))] + [(100, 200)]
    sheets = shelves(sizes, 100, 200)
    assert sorted(k for sheet in sheets for k in sheet) == list(range(len(sizes)))
    for sheet in sheets:
        taken = np.zeros((200, 100), int)
        for k, (x, y) in sheet.items():
            w, h = sizes[k]
            assert x + w <= 100
            assert y + h <= 200
            taken[y : y + h, x : x + w] += 1
        assert taken.max() == 1


def test_classes_are_those_of_the_assets() -> None:
    for actor in urban_drive().scene.actors:
        assert actor.asset.category in CLASSES


def test_a_rolling_turn_moves_with_the_car() -> None:
    way = np.tile(np.eye(4), (3, 1, 1))
    way[:, 0, 3] = [0, 1, 2]  # 10 m/s along x
    turn = 0.1
    way[2, :2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    poses = sensor_poses(way, 1, np.array([-0.05, 0.0, 0.05]), 0.1)
    assert poses[:, 0, 3].tolist() == pytest.approx([0.5, 1.0, 1.5])
    assert np.allclose(poses[1], way[1])
    assert np.arctan2(poses[2, 1, 0], poses[2, 0, 0]) == pytest.approx(turn / 2)


def test_scans_lose_pulses_and_carry_noise() -> None:
    caster = urban_drive()._caster

    def measure(**how: object) -> np.ndarray:
        options = LidarOptions(columns=256, **how)  # type: ignore[arg-type]
        return scan(caster, 1, options, np.random.default_rng(0)).points

    every = measure(dropout=False, noise=0.0)
    lost = measure(dropout=True)
    assert 0.5 < len(lost) / len(every) < 0.99
    ranges = np.linalg.norm(every[:, :3], axis=1)
    assert ranges.max() <= 121
    assert ranges.min() > 0.9
    assert every[:, 3].min() >= 0
    assert every[:, 3].max() <= 1
    rolled = measure(dropout=False, noise=0.0, rolling=True)
    assert len(rolled) > 0.9 * len(every)
    ahead = measure(dropout=False, fov=90.0)
    assert (np.abs(np.arctan2(ahead[:, 1], ahead[:, 0])) <= np.radians(45.5)).all()
