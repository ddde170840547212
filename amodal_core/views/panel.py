"""What the LiDAR sees, for below the overlay: the tracks from above, and the depth image.

The camera looks to the right, wherever on the vehicle it is. Where nothing tells a place (a camera
alone) the tracks are listed instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import cv2
import numpy as np
from numba import njit

from amodal_core.frame import Calibration, Frame, Tracks
from amodal_core.views.labels import track_labels
from amodal_core.views.palette import PAPER, track_colour
from amodal_core.views.text import put_text, text_size

_BACKGROUND = (16, 18, 23)
_LINES = (46, 51, 62)
_DIM = (128, 137, 152)
_SHARE = 0.2  # of the width, the panel's height
_ABOVE = 2 / 3  # of the width is the view from above
_BEHIND, _AHEAD = 6.0, 66.0  # metres shown behind and ahead of the LiDAR
_NEAR, _FAR = 3.0, 60.0  # metres between which depth is coloured
_TEXT = 10  # pixels, size of the font
_SCALE = 24  # pixels below the depth image, for its scale


def panel_height(width: int) -> int:
    """Pixels that the panel below an image of `width` pixels is high."""
    return round(_SHARE * width)


def draw_panel(frame: Frame, tracks: Tracks, width: int, classes: Sequence[str] = ()) -> np.ndarray:
    """Draw the panel of a frame.

    Args:
        frame: with points, depth and calibration, whatever is there.
        tracks: on the host; from above with their 3D boxes, without one where their depth says.
        width: pixels.
        classes: names that class ids index into, for the list.

    Returns:
        (panel_height(width), width, 3) uint8 RGB.
    """
    height = panel_height(width)
    split = round(_ABOVE * width)
    out = _empty(height, width).copy()
    boxes = np.full((len(tracks), 7), np.nan, np.float32)
    if tracks.boxes3d is not None:
        boxes = np.asarray(tracks.boxes3d)
    boxed = np.asarray(np.isfinite(boxes).all(axis=1))
    placed = boxed | (frame.calibration is not None and np.asarray(tracks.depths) > 0)
    if frame.points is None and not placed.any():
        # With a depth image beside it, in the place of the view from above.
        part = out if frame.depth is None else out[:, :split]
        _list(part, tracks, classes, "no scan and no calibration: the tracks in words")
    else:
        _from_above(out[:, :split], frame, tracks, boxes, boxed)
        if frame.depth is None:
            _list(out[:, split:], tracks, classes, "no depth image")
    if frame.depth is not None:
        _depth(out[:, split:], frame.depth)
    return out


def _list(out: np.ndarray, tracks: Tracks, classes: Sequence[str], title: str) -> None:
    """The tracks in words, in as many columns as there is room for; what is too much is counted."""
    canvas = np.ascontiguousarray(out)
    height, width = canvas.shape[:2]
    put_text(canvas, title, 4, 2, _TEXT, _DIM)
    line = text_size("0", _TEXT)[1] + 4
    rows = max(1, (height - line - 4) // line)
    labels = track_labels(tracks, classes)
    wide = max((text_size(text, _TEXT)[0] for text in labels), default=0) + 22
    room = rows * max(1, width // wide)
    if len(labels) > room:
        labels[room - 1 :] = [f"and {len(labels) - room + 1} more"]
    for k, text in enumerate(labels):
        x, y = 4 + k // rows * wide, line + 2 + k % rows * line
        canvas[y + 2 : y + line - 2, x : x + 3] = track_colour(int(tracks.ids[k]))
        put_text(canvas, text, x + 8, y, _TEXT, PAPER)
    out[:] = canvas


def _from_above(
    out: np.ndarray, frame: Frame, tracks: Tracks, boxes: np.ndarray, boxed: np.ndarray
) -> None:
    """The LiDAR's surroundings from above, to where the camera looks to the right."""
    height, width = out.shape[:2]
    scale = width / (_BEHIND + _AHEAD)
    canvas = np.ascontiguousarray(out)
    turn = _turn(frame.calibration)

    def place(xy: np.ndarray) -> np.ndarray:
        ahead, left = np.moveaxis(np.asarray(xy) @ turn.T, -1, 0)
        return np.stack([(ahead + _BEHIND) * scale, height / 2 - left * scale], axis=-1)

    origin = tuple(int(v) for v in place(np.zeros(2)))
    for metres in range(10, int(_AHEAD) + 1, 10):
        cv2.circle(canvas, origin, round(metres * scale), _LINES, 1, cv2.LINE_AA)
        at = origin[0] + round(metres * scale) + 3
        put_text(canvas, f"{metres} m", at, height - _TEXT - 6, _TEXT, _DIM)
    if frame.calibration is not None:
        K, T = frame.calibration.K, frame.calibration.camera_from_lidar
        for u in (0, frame.calibration.width):
            ray = T[:3, :3].T @ ((u - K[0, 2]) / K[0, 0], 0.0, 1.0)
            end = place(ray[:2] / np.linalg.norm(ray[:2]) * 200)
            cv2.line(canvas, origin, tuple(int(v) for v in end), _LINES, 1, cv2.LINE_AA)
    if frame.points is not None:
        _returns(canvas, frame.points, turn, scale)
    _boxes(canvas, tracks[np.flatnonzero(boxed)], boxes[boxed], place)
    if frame.calibration is not None:
        rest = tracks[np.flatnonzero(~boxed & (np.asarray(tracks.depths) > 0))]
        _points(canvas, rest, place(_positions(rest, frame.calibration)))
    # The vehicle's outline, as far as is known: long along the LiDAR's x axis.
    corners = np.array([(2.1, 0.9), (2.1, -0.9), (-2.1, -0.9), (-2.1, 0.9)])
    cv2.fillPoly(canvas, [np.round(place(corners)).astype(np.int32)], PAPER, cv2.LINE_AA)
    out[:] = canvas


@lru_cache(maxsize=4)
def _empty(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), _BACKGROUND, np.uint8)


@njit(cache=True, nogil=True)
def _returns(canvas: np.ndarray, points: np.ndarray, turn: np.ndarray, scale: float) -> None:
    """A dot a return; higher ones are brighter, and drawn over the road that they stand on."""
    height, width = canvas.shape[:2]
    for high in (False, True):
        for i in range(len(points)):
            shade = (points[i, 2] + np.float32(2.2)) / np.float32(2.5)
            if np.isnan(shade) or (shade >= np.float32(0.4)) != high:
                continue
            x, y = np.float64(points[i, 0]), np.float64(points[i, 1])
            u = (x * turn[0, 0] + y * turn[0, 1] + _BEHIND) * scale
            v = height / 2 - (x * turn[1, 0] + y * turn[1, 1]) * scale
            if u > -1 and u < width and v > -1 and v < height:
                light = np.float64(min(max(shade, np.float32(0.2)), np.float32(0.95)))
                dot = canvas[int(v), int(u)]
                dot[0], dot[1], dot[2] = light * 195, light * 210, light * 230


def _turn(calibration: Calibration | None) -> np.ndarray:
    """(2, 2) from the LiDAR's x, y to the camera's direction and its left."""
    if calibration is None:
        return np.eye(2)
    x, y = calibration.camera_from_lidar[2, :2]
    length = np.hypot(x, y)
    return np.array([[x, y], [-y, x]]) / length if length > 1e-6 else np.eye(2)


def _boxes(
    canvas: np.ndarray,
    tracks: Tracks,
    boxes: np.ndarray,
    place: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Footprints, filled while visible, with their ids."""
    corners = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) / 2
    shapes = []
    for box in boxes.tolist():
        x, y, _, length, width, _, yaw = box
        c, s = np.cos(yaw), np.sin(yaw)
        ground = corners * (length, width) @ np.array([[c, s], [-s, c]]) + (x, y)
        shapes.append(np.round(place(ground)).astype(np.int32))
    # Mixed within what surrounds them all.
    shown = [i for i in range(len(shapes)) if not tracks.coasted[i]]
    if shown:
        around = np.concatenate([shapes[i] for i in shown])
        low, high = np.maximum(around.min(axis=0) - 2, 0), np.maximum(around.max(axis=0) + 3, 0)
        under = canvas[low[1] : high[1], low[0] : high[0]]
        filled = under.copy()
        for i in shown:
            colour = track_colour(int(tracks.ids[i]))
            cv2.fillPoly(filled, [shapes[i] - low], colour, cv2.LINE_AA)
        if filled.size:
            under[:] = cv2.addWeighted(filled, 0.45, under, 0.55, 0)
    for i, shape in enumerate(shapes):
        cv2.polylines(canvas, [shape], True, track_colour(int(tracks.ids[i])), 1, cv2.LINE_AA)
        _number(canvas, int(tracks.ids[i]), shape.mean(axis=0))


def _positions(tracks: Tracks, calibration: Calibration) -> np.ndarray:
    """(N, 2) x, y in the LiDAR frame of the middle of each amodal box, at its track's depth."""
    boxes = np.asarray(tracks.amodal_boxes, np.float64)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    rays = np.linalg.inv(calibration.K) @ np.column_stack([middles, np.ones(len(tracks))]).T
    camera = rays * np.asarray(tracks.depths)
    lidar_from_camera = np.linalg.inv(calibration.camera_from_lidar)
    return (lidar_from_camera[:2, :3] @ camera + lidar_from_camera[:2, 3:]).T


def _points(canvas: np.ndarray, tracks: Tracks, pixels: np.ndarray) -> None:
    """Tracks without a 3D box, as discs with their ids; of those that coast only the rim."""
    for i, pixel in enumerate(np.round(pixels).astype(int).tolist()):
        colour, thickness = track_colour(int(tracks.ids[i])), 1 if tracks.coasted[i] else -1
        cv2.circle(canvas, pixel, 5, colour, thickness, cv2.LINE_AA)
        _number(canvas, int(tracks.ids[i]), np.array([pixel[0] + 14, pixel[1]]))


def _number(canvas: np.ndarray, number: int, at: np.ndarray) -> None:
    """An id in the middle of a place, on a dark plate; left out where that is not in the view."""
    width, height = text_size(f"{number}", _TEXT, True)
    x, y = int(at[0]) - width // 2, int(at[1]) - height // 2
    if x >= 1 and y >= 0 and x + width < canvas.shape[1] and y + height <= canvas.shape[0]:
        plate = canvas[y + 1 : y + height - 1, x - 1 : x + width + 1]
        plate[:] = plate // 3
        put_text(canvas, f"{number}", x, y, _TEXT, PAPER, True)


def _depth(out: np.ndarray, depth: np.ndarray) -> None:
    """The depth image, each return as a dot, near ones warm and far ones cold; and its scale."""
    height, width = out.shape[:2]
    inverse = np.zeros_like(depth)
    np.divide(1, depth, out=inverse, where=depth > 0)
    top = _TEXT + 8
    rows = min(round(depth.shape[0] * width / depth.shape[1]), height - top - _SCALE)
    if rows < 1:  # of an image that is too small for a view of its depth
        return
    shrink = max(1, round(depth.shape[1] / width))
    # Nearest return of each cell, so that shrinking loses nothing near.
    cells = cv2.dilate(inverse, np.ones((2 * shrink + 1, shrink + 1), np.uint8))
    small = cv2.resize(cells, (width, rows), interpolation=cv2.INTER_NEAREST)
    canvas = np.ascontiguousarray(out)
    hit = (small > 0).view(np.uint8)
    cv2.copyTo(_depth_colours(small), hit, canvas[top : top + rows])
    put_text(canvas, "depth of the LiDAR's returns", 2, 2, _TEXT, _DIM)
    bar = top + rows + 4
    scale = _depth_scale(width)[: height - bar]
    canvas[bar : bar + len(scale)] = scale
    out[:] = canvas


@lru_cache(maxsize=4)
def _depth_scale(width: int) -> np.ndarray:
    """(h, width, 3), as wide as the image, logarithmic, as that is how depth is looked at."""
    canvas = _empty(_SCALE + _TEXT, width).copy()
    metres = np.geomspace(_NEAR, _FAR, width)
    canvas[:5] = _depth_colours(1 / metres[None, :].astype(np.float32))
    for mark in (3, 5, 10, 20, 40, 60):
        words = f"{mark} m"
        x = round(np.interp(np.log(mark), np.log(metres[[0, -1]]), (0, width - 1)))
        x = min(max(x - text_size(words, _TEXT)[0] // 2, 0), width - text_size(words, _TEXT)[0])
        put_text(canvas, words, x, 6, _TEXT, _DIM)
    return canvas


def _depth_colours(inverse: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 RGB of inverse depths (h, w)."""
    warm = (inverse - 1 / _FAR) / (1 / _NEAR - 1 / _FAR)
    level = (255 * np.sqrt(np.clip(warm, 0, 1))).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(level, _turbo()))


@lru_cache(maxsize=1)
def _turbo() -> np.ndarray:
    """(256, 1, 3) uint8 RGB."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1])
