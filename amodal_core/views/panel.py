"""What the LiDAR sees, for below the overlay: the tracks from above, and the depth image."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from amodal_core.frame import Frame, Tracks
from amodal_core.views.palette import track_colour

_BACKGROUND = (16, 18, 23)
_LINES = (46, 51, 62)
_DIM = (128, 137, 152)
_PAPER = (244, 246, 250)
_SHARE = 0.2  # of the width, the panel's height
_ABOVE = 2 / 3  # of the width is the view from above
_BEHIND, _AHEAD = 6.0, 66.0  # metres shown behind and ahead of the LiDAR
_NEAR, _FAR = 3.0, 60.0  # metres between which depth is coloured


def panel_height(width: int) -> int:
    """Pixels that the panel below an image of `width` pixels is high."""
    return round(_SHARE * width)


def draw_panel(frame: Frame, tracks: Tracks, width: int) -> np.ndarray:
    """Draw the panel of a frame.

    Args:
        frame: with points, depth and calibration, whatever is there.
        tracks: on the host; those with a 3D box are shown from above.
        width: pixels.

    Returns:
        (panel_height(width), width, 3) uint8 RGB.
    """
    height = panel_height(width)
    split = round(_ABOVE * width)
    out = np.empty((height, width, 3), np.uint8)
    out[:] = _BACKGROUND
    _from_above(out[:, :split], frame, tracks)
    if frame.depth is not None:
        _depth(out[:, split:], frame.depth)
    return out


def _from_above(out: np.ndarray, frame: Frame, tracks: Tracks) -> None:
    """LiDAR frame seen from above, ahead to the right."""
    height, width = out.shape[:2]
    scale = width / (_BEHIND + _AHEAD)
    canvas = np.ascontiguousarray(out)

    def place(xy: np.ndarray) -> np.ndarray:
        return np.stack([(xy[..., 0] + _BEHIND) * scale, height / 2 - xy[..., 1] * scale], axis=-1)

    origin = tuple(int(v) for v in place(np.zeros(2)))
    for metres in range(10, int(_AHEAD) + 1, 10):
        cv2.circle(canvas, origin, round(metres * scale), _LINES, 1, cv2.LINE_AA)
        at = origin[0] + round(metres * scale) + 3, height - 5
        cv2.putText(canvas, f"{metres} m", at, cv2.FONT_HERSHEY_SIMPLEX, 0.33, _DIM, 1, cv2.LINE_AA)
    if frame.calibration is not None:
        K, T = frame.calibration.K, frame.calibration.camera_from_lidar
        for u in (0, frame.calibration.width):
            ray = T[:3, :3].T @ ((u - K[0, 2]) / K[0, 0], 0.0, 1.0)
            end = place(ray[:2] / np.linalg.norm(ray[:2]) * 200)
            cv2.line(canvas, origin, tuple(int(v) for v in end), _LINES, 1, cv2.LINE_AA)
    if frame.points is not None:
        pixels = place(frame.points[:, :2]).astype(np.int32)
        inside = ((pixels >= 0) & (pixels < (width, height))).all(axis=1)
        u, v = pixels[inside].T
        # Higher returns are brighter, and drawn over the road that they stand on.
        shade = np.clip((frame.points[inside, 2] + 2.2) / 2.5, 0.2, 0.95)
        for part in (shade < 0.4, shade >= 0.4):
            light = (shade[part, None] * (195, 210, 230)).astype(np.uint8)
            canvas[v[part], u[part]] = light
    if tracks.boxes3d is not None:
        _boxes(canvas, tracks, np.asarray(tracks.boxes3d), place)
    length = max(2, round(4.2 * scale / 2))
    half = max(1, round(1.8 * scale / 2))
    x, y = origin
    cv2.rectangle(canvas, (x - length, y - half), (x + length, y + half), _PAPER, -1, cv2.LINE_AA)
    out[:] = canvas


def _boxes(
    canvas: np.ndarray,
    tracks: Tracks,
    boxes: np.ndarray,
    place: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Footprints, filled while seen, with their ids."""
    corners = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) / 2
    filled = canvas.copy()
    shapes = []
    for i in np.flatnonzero(np.isfinite(boxes).all(axis=1)):
        x, y, _, length, width, _, yaw = (float(v) for v in boxes[i])
        c, s = np.cos(yaw), np.sin(yaw)
        ground = corners * (length, width) @ np.array([[c, s], [-s, c]]) + (x, y)
        shape = np.round(place(ground)).astype(np.int32)
        colour = track_colour(int(tracks.ids[i]))
        shapes.append((i, shape, colour))
        if not tracks.coasted[i]:
            cv2.fillPoly(filled, [shape], colour, cv2.LINE_AA)
    cv2.addWeighted(filled, 0.45, canvas, 0.55, 0, dst=canvas)
    for i, shape, colour in shapes:
        cv2.polylines(canvas, [shape], True, colour, 1, cv2.LINE_AA)
        x, y = (int(v) for v in shape.mean(axis=0))
        font = cv2.FONT_HERSHEY_SIMPLEX
        for ink, thickness in ((_BACKGROUND, 3), (_PAPER, 1)):
            name = f"{int(tracks.ids[i])}"
            cv2.putText(canvas, name, (x - 5, y + 4), font, 0.38, ink, thickness, cv2.LINE_AA)


def _depth(out: np.ndarray, depth: np.ndarray) -> None:
    """The depth image, each return as a dot, near ones warm and far ones cold."""
    height, width = out.shape[:2]
    inverse = np.zeros_like(depth)
    np.divide(1, depth, out=inverse, where=depth > 0)
    rows = round(depth.shape[0] * width / depth.shape[1])
    shrink = max(1, round(depth.shape[1] / width))
    # Nearest return of each cell, so that shrinking loses nothing near.
    cells = cv2.dilate(inverse, np.ones((2 * shrink + 1, shrink + 1), np.uint8))
    small = cv2.resize(cells, (width, rows), interpolation=cv2.INTER_NEAREST)
    warm = (small - 1 / _FAR) / (1 / _NEAR - 1 / _FAR)
    level = (255 * np.clip(warm, 0, 1) ** 0.5).astype(np.uint8)
    coloured = cv2.applyColorMap(level, cv2.COLORMAP_TURBO)[..., ::-1]
    top = max(0, (height - rows) // 2)
    shown = coloured[:height]
    hit = small[:height] > 0
    canvas = np.ascontiguousarray(out)
    canvas[top : top + len(shown)][hit] = shown[hit]
    at = 0, max(12, top - 8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(canvas, "depth of the LiDAR's returns", at, font, 0.36, _DIM, 1, cv2.LINE_AA)
    out[:] = canvas
