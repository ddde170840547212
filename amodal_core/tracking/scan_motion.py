"""How the LiDAR moved from one scan to the next, from the scans alone.

Each scan is laid out on squares seen from above; a square that returns fill to some height holds a
wall, a trunk, a car, and is kept as a normal distribution. The motion on the plane is the one that
lays the distributions of the new scan on those of the one before: distribution to distribution NDT
(Stoyanov et al., IJRR 2012), in its squared form, with Geman-McClure weights against what moves by
itself.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_CELL = 1.0  # metres, side of a square
_REACH = 60.0  # metres from the LiDAR to the border
_SIDE = int(2 * _REACH / _CELL)
_LEAST = 4  # returns in a square
_HEIGHT = 0.5  # metres between the lowest and the highest of them
_THICK = 0.1  # metres, standard deviation of what is perfectly thin
_THIN = 0.15  # metres, beyond which a square is filled rather than holds something
_ENDLESS = 10.0  # metres, that then stand for its extent
_TURNS = 12  # of the search, while the weights narrow
_WIDE, _NARROW = 9.0, 1.0  # squared Mahalanobis distances that count half: first, last
_LEAST_MATCHED = 25  # squares that agree in the end
_LEAST_SHARE = 0.4  # of the squares that both scans have
_FARTHEST = 5.0  # metres between two scans that are believed
_LONGEST = 0.5  # seconds between two scans that are compared
_USUAL = np.array(
    [0.5, 0.5, 0.05]
)  # metres and radians by which a step differs from the one before
_STARTS = np.array([[x, 0.0, 0.0] for x in (0.0, 1.0, 2.0, 3.0, 4.0)])


class ScanMotion:
    """Tells the motion between successive scans of one LiDAR; remembers the last scan only."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the scan before."""
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self._rates: np.ndarray | None = None  # x, y, turn a second, where the search begins

    def step(self, points: np.ndarray, seconds: float) -> np.ndarray | None:
        """The motion since the scan before.

        Args:
            points: (N, 3+) float32, LiDAR frame, z up; not finite ones are left out.
            seconds: since the scan before.

        Returns:
            (4, 4) float64 lidar_now_from_lidar_before, a turn about z and a shift along x and y;
            None for the first scan and where the scans do not tell.
        """
        now = _cells(np.ascontiguousarray(points, np.float32))
        before, self._before = self._before, now
        if before is None or not 0 < seconds <= _LONGEST:
            self._rates = None
            return None
        # Where nothing says how fast it goes, from standing still up to a motorway's speed.
        starts = _STARTS if self._rates is None else self._rates[None] * seconds
        results = [_matched(*before, now[0], start) for start in starts]
        step, matched, possible = max(results, key=lambda result: result[1])
        agree = matched >= max(_LEAST_MATCHED, _LEAST_SHARE * possible)
        if not agree or np.hypot(step[0], step[1]) > _FARTHEST:
            self._rates = None
            return None
        self._rates = step / seconds
        x, y, turn = step
        before_from_now = np.eye(4)
        before_from_now[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        before_from_now[:2, 3] = x, y
        return np.linalg.inv(before_from_now)


@njit(cache=True)
def _cells(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The squares that hold something.

    Returns:
        (K, 5) float64 mean x, y, covariance xx, xy, yy of each, row by row; (S, S) int16, which of
        them each square of the plane is, -1 for none.
    """
    sums = np.zeros((_SIDE, _SIDE, 6))
    low = np.full((_SIDE, _SIDE), np.float32(np.inf))
    high = np.full((_SIDE, _SIDE), np.float32(-np.inf))
    for n in range(len(points)):
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        # False for NaN.
        if not (abs(x) < _REACH and abs(y) < _REACH and abs(z) < _REACH):
            continue
        i, j = int((x + _REACH) / _CELL), int((y + _REACH) / _CELL)
        low[i, j], high[i, j] = min(low[i, j], z), max(high[i, j], z)
        # About the square's middle, so that nothing cancels.
        x = np.float64(x) - ((i + 0.5) * _CELL - _REACH)
        y = np.float64(y) - ((j + 0.5) * _CELL - _REACH)
        cell = sums[i, j]
        cell[0] += 1
        cell[1] += x
        cell[2] += y
        cell[3] += x * x
        cell[4] += x * y
        cell[5] += y * y
    cells, places = np.empty((_SIDE * _SIDE, 5)), np.full((_SIDE, _SIDE), np.int16(-1))
    count = 0
    for i in range(_SIDE):
        for j in range(_SIDE):
            if high[i, j] - low[i, j] < _HEIGHT:
                continue
            total = sums[i, j]
            n = total[0]
            if n < _LEAST:
                continue
            x, y = total[1] / n, total[2] / n
            xx, xy, yy = total[3] / n - x * x, total[4] / n - x * y, total[5] / n - y * y
            # Along a wall a square is filled from end to end wherever the wall is: that tells no
            # place. What is not thin is taken as endless.
            half = 0.5 * np.sqrt((xx - yy) ** 2 + 4 * xy * xy)
            middle = 0.5 * (xx + yy)
            large, small = middle + half, max(middle - half, 0.0)
            if small > _THIN**2:
                continue
            angle = 0.5 * np.arctan2(2 * xy, xx - yy)
            cos, sin = np.cos(angle), np.sin(angle)
            large = _ENDLESS**2 if large > _THIN**2 else large + _THICK**2
            small += _THICK**2
            places[i, j], cell = count, cells[count]
            count += 1
            cell[0] = x + (i + 0.5) * _CELL - _REACH
            cell[1] = y + (j + 0.5) * _CELL - _REACH
            cell[2] = cos * cos * large + sin * sin * small
            cell[3] = cos * sin * (large - small)
            cell[4] = sin * sin * large + cos * cos * small
    return cells[:count].copy(), places


@njit(cache=True)
def _matched(
    before: np.ndarray, places: np.ndarray, now: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, float, int]:
    """before_from_now as x, y, turn; squares that agree, and that have a partner at all."""
    step = start.copy()
    matched, possible = 0.0, 0
    for turn in range(_TURNS):
        width = max(_NARROW, _WIDE * 0.6**turn)
        cos, sin = np.cos(step[2]), np.sin(step[2])
        hessian, gradient = np.zeros((3, 3)), np.zeros(3)
        matched, possible = 0.0, 0
        for n in range(len(now)):
            x, y, xx, xy, yy = now[n, 0], now[n, 1], now[n, 2], now[n, 3], now[n, 4]
            u, v = cos * x - sin * y, sin * x + cos * y
            # The covariance, turned.
            a = cos * cos * xx - 2 * cos * sin * xy + sin * sin * yy
            b = cos * sin * (xx - yy) + (cos * cos - sin * sin) * xy
            c = sin * sin * xx + 2 * cos * sin * xy + cos * cos * yy
            px, py = u + step[0], v + step[1]
            ci, cj = int(np.floor((px + _REACH) / _CELL)), int(np.floor((py + _REACH) / _CELL))
            best, ex, ey, wa, wb, wc = np.inf, 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(max(ci - 1, 0), min(ci + 2, _SIDE)):
                for j in range(max(cj - 1, 0), min(cj + 2, _SIDE)):
                    if places[i, j] < 0:
                        continue
                    other = before[places[i, j]]
                    sa, sb, sc = a + other[2], b + other[3], c + other[4]
                    det = sa * sc - sb * sb
                    ia, ib, ic = sc / det, -sb / det, sa / det
                    dx, dy = px - other[0], py - other[1]
                    distance = ia * dx * dx + 2 * ib * dx * dy + ic * dy * dy
                    if distance < best:
                        best, ex, ey, wa, wb, wc = distance, dx, dy, ia, ib, ic
            if best == np.inf:
                continue
            possible += 1
            weight = (width / (width + best)) ** 2
            matched += weight
            # Derivatives of the place: (1, 0, -v) and (0, 1, u).
            j0, j1 = -v, u
            r0, r1 = wa * ex + wb * ey, wb * ex + wc * ey
            gradient[0] += weight * r0
            gradient[1] += weight * r1
            gradient[2] += weight * (r0 * j0 + r1 * j1)
            hessian[0, 0] += weight * wa
            hessian[0, 1] += weight * wb
            hessian[1, 1] += weight * wc
            hessian[0, 2] += weight * (wa * j0 + wb * j1)
            hessian[1, 2] += weight * (wb * j0 + wc * j1)
            hessian[2, 2] += weight * (wa * j0 * j0 + 2 * wb * j0 * j1 + wc * j1 * j1)
        if possible < 3:
            return step, 0.0, possible
        hessian[1, 0], hessian[2, 0], hessian[2, 1] = hessian[0, 1], hessian[0, 2], hessian[1, 2]
        # Where nothing tells, as along a tunnel, it goes on as before.
        for k in range(3):
            hessian[k, k] += 1 / _USUAL[k] ** 2
            gradient[k] += (step[k] - start[k]) / _USUAL[k] ** 2
        step = step - np.linalg.solve(hessian, gradient)
    return step, matched, possible
