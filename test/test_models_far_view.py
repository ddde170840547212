"""What is far is seen a second time, larger: which part of the image, and what becomes of both."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from amodal_core.frame import Calibration, Frame, Instances, Report, joined
from amodal_core.geometry.horizon import horizon
from amodal_core.geometry.projection import project
from amodal_core.masks.mask_set import BoxMasks
from amodal_core.models.far_view import FarView, placed, strip_of, view_of

SIZE = (200, 600)
FOCAL = 360.0
# LiDAR axes (x forward, y left, z up) in a camera's (x right, y down, z forward).
LEVEL = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])


def camera(pitch=0.0, focal=FOCAL, size=SIZE, pose=LEVEL):
    """Looking down by `pitch` degrees."""
    height, width = size
    turn = np.eye(4)
    c, s = np.cos(np.radians(pitch)), np.sin(np.radians(pitch))
    turn[1:3, 1:3] = [[c, -s], [s, c]]
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return Calibration(K, turn @ pose, width, height)


def image_with(*windows, size=SIZE):
    """Black, with white rectangles (x0, y0, x1, y1)."""
    image = np.zeros((*size, 3), np.uint8)
    for x0, y0, x1, y1 in windows:
        image[y0:y1, x0:x1] = 255
    return image


class Finder:
    """Finds bright rectangles that are `least` pixels high at least, exactly; remembers sizes."""

    name, inputs, classes = "finder", frozenset({"image"}), ("car",)

    def __init__(self, least=0, scores=lambda size: 0.9):
        self.least, self.scores, self.sizes, self.calls = least, scores, [], 0

    def infer(self, frames, report=None):
        self.calls += 1
        return [self._found(frame) for frame in frames]

    def _found(self, frame):
        self.sizes.append(frame.size)
        bright = (frame.image[..., 0] > 127).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(bright)
        boxes = [[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:count] if h >= self.least]
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        n = len(boxes)
        masks = BoxMasks(frame.size, np.full((n, 4, 4), 5.0, np.float32), boxes)
        return Instances(
            size=frame.size,
            amodal_boxes=boxes,
            visible_boxes=boxes,
            scores=np.full(n, self.scores(frame.size), np.float32),
            class_ids=np.zeros(n, np.int64),
            amodal=masks,
            visible=masks,
            occlusion_rates=np.zeros(n, np.float32),
            depths=np.full(n, 50.0, np.float32),
            occluders=np.zeros((n, n), bool),
        )


def seen(model, image, calibration=None, focal=720.0, pixels=0):
    frame = Frame(0, image=image, calibration=calibration)
    (result,) = FarView(model, focal, pixels).infer([frame], Report())
    return result.numpy()


@pytest.mark.parametrize("pitch", [-5.0, 0.0, 8.0])
def test_the_horizon_is_where_a_point_at_the_scanners_height_goes_to(pitch):
    calibration = camera(pitch)
    away = np.array([[1e6, 0, 0, 0]], np.float32)
    pixels = project(away, replace(calibration, height=10_000)).pixels[0]
    assert horizon(calibration) == pytest.approx(pixels[1], abs=0.6)


@pytest.mark.parametrize("pose", [np.eye(4), None], ids=["no scanner", "scanner tilted by 30"])
def test_a_scanner_that_cannot_tell_leaves_the_horizon_at_the_principal_point(pose):
    calibration = camera(30.0) if pose is None else camera(pose=pose)
    assert horizon(calibration) == SIZE[0] / 2


def test_the_strip_has_the_same_scale_whatever_the_camera():
    for focal, size in ((360.0, (200, 600)), (720.0, (375, 1242)), (1440.0, (1080, 1920))):
        strip = strip_of(camera(focal=focal, size=size), 780.0)
        assert strip.scale == pytest.approx(780 / focal, rel=0.02)
        assert strip.size[0] == pytest.approx(96, abs=2)
        assert strip.size[1] <= 904


def test_a_camera_that_looks_at_the_ground_sees_nothing_far():
    assert strip_of(camera(pitch=5.0, focal=1000.0), 1440.0) is not None
    assert strip_of(camera(pitch=9.0, focal=1000.0), 1440.0) is None


def test_points_lie_in_the_strip_where_its_pixels_show_them():
    calibration = camera(3.0)
    points = np.random.default_rng(0).uniform([20, -9, -1, 0], [60, 9, 1, 1], (500, 4))
    points = points.astype(np.float32)
    strip = strip_of(calibration, 720.0)
    whole = Frame(0, image=image_with(), points=points, calibration=calibration)
    view = view_of(replace(whole, depth=np.zeros(SIZE, np.float32)), strip)
    here = project(points, view.calibration)
    assert (here.index >= 0).sum() > 50
    K, own = calibration.K, view.calibration.K
    ray = np.array([0.2, -0.05, 1.0])
    moved = ((K @ ray)[:2] + 0.5 - (strip.x, strip.y)) * strip.scale - 0.5
    np.testing.assert_allclose((own @ ray)[:2], moved, atol=1e-9)
    np.testing.assert_array_equal(view.depth, here.depth)
    assert view.image.shape[:2] == view.depth.shape == strip.size


def test_an_object_too_small_for_the_whole_image_is_found_in_the_strip_in_its_pixels():
    small = (320, 97, 332, 103)
    calibration = camera()
    assert len(seen(Finder(least=9), image_with(small))) == 0
    found = seen(Finder(least=9), image_with(small), calibration)
    np.testing.assert_allclose(found.amodal_boxes, [small], atol=0.6)
    truth = image_with(small)[..., 0] > 127
    mask = found.amodal.dense()[0]
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85


def test_what_both_views_see_is_one_object():
    small, near = (320, 95, 332, 105), (100, 60, 180, 160)
    found = seen(Finder(), image_with(small, near), camera())
    assert len(found) == 2
    boxes = found.amodal_boxes[np.argsort(found.amodal_boxes[:, 0])]
    np.testing.assert_allclose(boxes, [near, small], atol=0.6)


def test_what_one_view_tells_apart_stays_apart():
    """A car of which another hides all but the edge is no second look at that."""
    before, behind = np.array([[320, 95, 340, 105], [323, 95, 343, 105]], np.float32)
    calibration = camera()

    class Pair(Finder):
        def _found(self, frame):
            one = super()._found(replace(frame, image=np.full((*frame.size, 3), 255, np.uint8)))
            boxes = np.array([before, behind])
            if frame.size != SIZE:
                strip = strip_of(calibration, 720.0)
                boxes = (boxes - np.tile([strip.x, strip.y], 2)) * np.tile(strip.scale, 2)
            two = joined([one, one])
            boxes = boxes.astype(np.float32)
            masks = BoxMasks(frame.size, np.full((2, 4, 4), 5.0, np.float32), boxes)
            return replace(two, amodal_boxes=boxes, amodal=masks, visible=masks)

    found = seen(Pair(), image_with(), calibration)
    boxes = found.amodal_boxes[np.argsort(found.amodal_boxes[:, 0])]
    np.testing.assert_allclose(boxes, [before, behind], atol=0.6)


@pytest.mark.parametrize(("whole", "strip", "best"), [(0.5, 0.45, 0.45), (0.9, 0.5, 0.9)])
def test_the_strip_counts_where_both_are_about_as_sure(whole, strip, best):
    scores = Finder(scores=lambda size: whole if size == SIZE else strip)
    found = seen(scores, image_with((320, 95, 332, 105)), camera())
    assert found.scores == pytest.approx([best])


def test_what_the_strip_cuts_off_is_the_whole_images():
    # Twenty pixels high, half of it above the strip.
    cut = (320, 70, 332, 90)
    found = seen(Finder(), image_with(cut), camera())
    np.testing.assert_allclose(found.amodal_boxes, [cut], atol=0.01)


def test_where_the_image_ends_nothing_is_cut_off():
    size = (200, 300)
    border = (0, 95, 12, 105)
    found = seen(Finder(least=15), image_with(border, size=size), camera(size=size))
    np.testing.assert_allclose(found.amodal_boxes, [border], atol=0.6)


def test_the_whole_image_is_shrunk_only_where_there_is_a_strip():
    model, image = Finder(), image_with()
    seen(model, image, camera(), pixels=30_000)
    assert model.sizes[0] == (100, 300)
    assert model.sizes[1][0] == pytest.approx(96 * 720 / 780, abs=1)
    model.sizes.clear()
    seen(model, image, None, pixels=30_000)
    seen(model, image, camera(), focal=0.0, pixels=30_000)
    assert model.sizes == [SIZE, SIZE]


def test_frames_that_come_together_go_through_the_model_together():
    small, near = (320, 95, 332, 105), (100, 60, 180, 160)
    model = Finder()
    frames = [
        Frame(0, image=image_with(small), calibration=camera()),
        Frame(1, image=image_with(near)),
        Frame(2, image=image_with(small, near), calibration=camera(3.0)),
    ]
    results = [r.numpy() for r in FarView(model, 720.0, 0).infer(frames, Report())]
    assert model.calls == 2
    assert [len(r) for r in results] == [1, 1, 2]
    alone = seen(Finder(), image_with(small), camera())
    np.testing.assert_array_equal(results[0].amodal_boxes, alone.amodal_boxes)


def test_of_both_views_objects_the_nearer_hides_the_other():
    # The whole image's hides a part of the strip's, which lies behind it.
    calibration = camera()

    class Two(Finder):
        def _found(self, frame):
            strip = frame.size != SIZE
            scale = 2.0 if strip else 1.0
            x, y = (
                (strip_of(calibration, 720.0).x, strip_of(calibration, 720.0).y)
                if strip
                else (0, 0)
            )
            box = (300, 92, 330, 108) if strip else (310, 60, 400, 160)
            box = (np.array([box], np.float32) - [x, y, x, y]) * scale
            one = Finder()._found(Frame(0, image=np.full((*frame.size, 3), 255, np.uint8)))
            masks = BoxMasks(
                frame.size, np.full((1, 4, 4), 5.0, np.float32), box.astype(np.float32)
            )
            shown = BoxMasks(
                frame.size,
                np.where(np.arange(4) < (1 if strip else 9), 5.0, -5.0).astype(np.float32)[
                    None, None
                ]
                * np.ones((1, 4, 1), np.float32),
                box.astype(np.float32),
            )
            depth = np.array([60.0 if strip else 8.0], np.float32)
            return replace(
                one, amodal_boxes=box.astype(np.float32), amodal=masks, visible=shown, depths=depth
            )

    found = seen(Two(), image_with(), calibration)
    far, near = np.argsort(-found.depths)
    assert found.occluders[far, near]
    assert not found.occluders[near, far]


def test_a_strip_that_would_show_nothing_larger_is_not_looked_at():
    model = Finder()
    seen(model, image_with(), camera(focal=700.0))
    assert model.sizes == [SIZE]


def test_objects_come_back_from_a_strip_to_where_they_were():
    strip = strip_of(camera(), 720.0)
    boxes = np.array([[310, 90, 340, 110]], np.float32)
    inside = (boxes - np.tile([strip.x, strip.y], 2)) * np.tile(strip.scale, 2)
    masks = BoxMasks(strip.size, np.full((1, 4, 4), 5.0, np.float32), inside.astype(np.float32))
    one = Instances(
        size=strip.size,
        amodal_boxes=inside.astype(np.float32),
        visible_boxes=inside.astype(np.float32),
        scores=np.ones(1, np.float32),
        class_ids=np.zeros(1, np.int64),
        amodal=masks,
        visible=masks,
        occlusion_rates=np.zeros(1, np.float32),
        depths=np.ones(1, np.float32),
        occluders=np.zeros((1, 1), bool),
    )
    back = placed(one, SIZE, strip)
    np.testing.assert_allclose(back.amodal_boxes, boxes, atol=1e-3)
    assert back.amodal.rle().areas()[0] == 600
