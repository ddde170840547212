"""Constant-velocity Kalman filters, one for each quantity of each track, all stepped at once.

The quantities of a track are independent in the model (white acceleration, no cross terms), so that
every filter is a 2 x 2 one in closed form: Bar-Shalom et al., Estimation with Applications to
Tracking and Navigation, 2001, section 6.2 (discretised continuous white noise acceleration).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from amodal_core.arrays import positions
from amodal_core.frame import Calibration

# Columns: centre u, v in pixels, log width, log height, range in metres, centre x, y, z in metres.
QUANTITIES = 8
RANGE = 4
_GUESSED = 8.0  # times the usual noise that are added to it, of what is wholly hidden
_FAINT = 4.0  # the same of what scores nothing
_STEADY = 1.0  # pixels a step that all places are off while the camera goes on as before
_NEARER = 0.8, 1.25  # limits of the change of the range in one step, which may be misjudged
_STEADIER = 0.35  # times the usual accelerations, where the vehicle's own are taken out
_FAR = 1e5  # metres, that stand for a range that is unknown: there only turns show
_NEAREST = 1.0  # metres, of what is still in front of the camera


@dataclass(eq=False)
class Motion:
    """The filters' states of T tracks.

    Attributes:
        values: (T, 8) float64, the quantities; NaN where never measured.
        rates: (T, 8) float64, their change a second.
        covariances: (T, 8, 3) float64, variance of the value, covariance, variance of the rate.
        drifts: (T, 8) float64, what the vehicle's own motion adds to the rates, a second; zeros
            where it is not known, and the rates hold all.
    """

    values: np.ndarray
    rates: np.ndarray
    covariances: np.ndarray
    drifts: np.ndarray

    @classmethod
    def started(
        cls,
        measured: np.ndarray,
        hidden: np.ndarray | float = 0.0,
        scores: np.ndarray | float = 1.0,
    ) -> Motion:
        """From first measurements, as `update` takes them: at rest with an uncertain velocity."""
        noise = measurement_noise(measured) * _doubt(hidden, scores)
        covariances = np.zeros((*measured.shape, 3))
        covariances[..., 0] = noise**2
        covariances[..., 2] = _first_rates(measured) ** 2
        return cls(measured.copy(), np.zeros_like(measured), covariances, np.zeros_like(measured))

    def __getitem__(self, index: np.ndarray | slice) -> Motion:
        chosen = positions(index, len(self.values))
        columns = self.values, self.rates, self.covariances, self.drifts
        return Motion(*(column.take(chosen, 0) for column in columns))

    def joined(self, other: Motion) -> Motion:
        """These tracks followed by the others."""
        return Motion(
            np.concatenate([self.values, other.values]),
            np.concatenate([self.rates, other.rates]),
            np.concatenate([self.covariances, other.covariances]),
            np.concatenate([self.drifts, other.drifts]),
        )

    def carry(self, step: np.ndarray, calibration: Calibration, dt: float) -> None:
        """Take the vehicle's own motion of a step out of the rates, in place; before `predict`.

        What stands still is then where the vehicle's motion puts it, and rates are over ground. A
        place in the image is one in space at the track's range.

        Args:
            step: (4, 4) lidar_now_from_lidar_before.
            calibration: of the image.
            dt: seconds of the step.
        """
        before = self.values.copy()
        source, K = calibration.camera_from_lidar, calibration.K
        moved = source @ step @ np.linalg.inv(source)
        ranges = self.values[:, RANGE]
        z = np.where(np.isfinite(ranges), np.maximum(ranges, _NEAREST), _FAR)
        focal, middle = K[[0, 1], [0, 1]], K[:2, 2] + 0.5  # boxes count from the pixel's corner
        rays = np.column_stack([(self.values[:, :2] - middle) / focal, np.ones(len(z))])
        flow = np.column_stack([self.rates[:, :2] / focal, np.zeros(len(z))])
        closing = np.where(np.isfinite(ranges), self.rates[:, RANGE], 0.0)[:, None]
        place = (rays * z[:, None]) @ moved[:3, :3].T + moved[:3, 3]
        speed = (flow * z[:, None] + rays * closing) @ moved[:3, :3].T
        ahead = place[:, 2] > _NEAREST
        depth = np.where(ahead, place[:, 2], z)
        ratio = z / depth
        image = np.where(ahead[:, None], place / depth[:, None], rays)
        turned = np.where(ahead[:, None], (speed - image * speed[:, 2:]) / depth[:, None], flow)
        self.values[:, :2] = image[:, :2] * focal + middle
        self.rates[:, :2] = turned[:, :2] * focal
        self.values[:, 2:4] += np.log(ratio)[:, None]
        self.values[:, RANGE] = np.where(np.isfinite(ranges), depth, ranges)
        self.rates[:, RANGE] = np.where(ahead & np.isfinite(ranges), speed[:, 2], closing[:, 0])
        self.values[:, 5:] = self.values[:, 5:] @ step[:3, :3].T + step[:3, 3]
        self.rates[:, 5:] = self.rates[:, 5:] @ step[:3, :3].T
        self.drifts = np.nan_to_num(self.values - before) / dt

    def predict(self, dt: float, *, carried: bool = False) -> None:
        """Move on by dt seconds, in place.

        A constant velocity in space is none in the image: what comes nearer moves faster there.
        With u = X / Z, constant rates of X and Z, and the rate u' now, u changes in dt seconds by
        u' dt Z / (Z + Z' dt), whatever the camera's intrinsics. The range stands for Z.

        Args:
            dt: seconds.
            carried: the vehicle's motion is in the values already, by `carry`; else it goes on as
                in the step before.
        """
        noise = _accelerations(self.values) ** 2
        if carried:
            noise[:, [0, 1, *range(RANGE, QUANTITIES)]] *= _STEADIER**2
        own = self.values, self.rates, self.covariances, self.drifts
        powers = dt, dt**2, dt**3
        self.values, self.covariances, nearer = _predicted(*own, noise, powers, not carried)
        # An extrapolated size may not run away from what its range says.
        closing = np.log(nearer)[:, None] / max(dt, 1e-9)
        slowest = np.maximum(self.rates[:, 2:4], closing - 0.7)
        self.rates[:, 2:4] = np.minimum(slowest, closing + 0.7)

    def stir(self, common: np.ndarray, dt: float) -> None:
        """Take in, in place, that the camera turns otherwise than before.

        Velocities are trusted less by as much as explains what all places are off: a constant
        acceleration over the step (Bar-Shalom et al., section 6.3.2).

        Args:
            common: (2,) pixels that most tracks are off their predictions.
            dt: seconds of the step.
        """
        square = np.maximum(np.abs(common) - _STEADY, 0.0) ** 2
        self.covariances[:, :2, 0] += square
        self.covariances[:, :2, 1] += 2 * square / dt
        self.covariances[:, :2, 2] += 4 * square / dt**2

    def update(
        self,
        rows: np.ndarray,
        measured: np.ndarray,
        hidden: np.ndarray | float = 0.0,
        scores: np.ndarray | float = 1.0,
    ) -> None:
        """Take in measurements of some tracks, in place.

        Args:
            rows: of the tracks.
            measured: (len(rows), 8), NaN where there is none.
            hidden: (len(rows),) share of each that something hides: the outline of what does not
                show is a guess, and what slides over an object would give it its own motion.
            scores: (len(rows),) of each; what is hardly made out is not measured well.
        """
        noise = (measurement_noise(measured) * _doubt(hidden, scores)) ** 2
        # A box whose size jumps has moved one edge only: the centre knows no better than that.
        jumps = np.exp(measured[:, 2:4]) - np.exp(self.values[rows][:, 2:4])
        noise[:, :2] += 0.25 * np.nan_to_num(jumps) ** 2
        own = self.values, self.rates, self.covariances
        _update(*own, rows, measured, noise, _first_rates(measured) ** 2)

    def boxes(self) -> np.ndarray:
        """(T, 4) float64 xyxy in pixels."""
        half = np.exp(self.values[:, 2:4]) / 2
        return np.concatenate([self.values[:, :2] - half, self.values[:, :2] + half], axis=1)

    def velocities(self) -> tuple[np.ndarray, np.ndarray]:
        """(T, 3) metres a second of the centre and (T, 2) pixels a second of the box's, float32.

        NaN where unknown: a rate is known from the second measurement on, which leaves it less
        uncertain than the first, until too long without one has made it as uncertain again.
        """
        measured_again = self.covariances[..., 2] < _first_rates(self.values) ** 2
        rates = (self.rates + self.drifts).astype(np.float32)
        space, image = rates[:, 5:], rates[:, :2]
        # A velocity is known whole or not at all.
        space[~measured_again[:, 5:].all(axis=1)] = np.nan
        image[~measured_again[:, :2].all(axis=1)] = np.nan
        return space, image

    def ranges(self) -> np.ndarray:
        """(T,) float64 metres, NaN where unknown."""
        return np.maximum(self.values[:, RANGE], 0.1)


@njit(cache=True, nogil=True)
def _predicted(
    values: np.ndarray,
    rates: np.ndarray,
    covariances: np.ndarray,
    drifts: np.ndarray,
    noise: np.ndarray,
    powers: tuple[float, float, float],
    drifting: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and covariances in dt seconds, and (T,) `_nearer` from then on; rates in place.

    Args:
        values: see `Motion`, as the next three.
        rates: see there.
        covariances: see there.
        drifts: see there.
        noise: (T, 8) squares of the accelerations' densities.
        powers: dt, its square and its cube.
        drifting: whether values take the drifts along.
    """
    dt, square, cube = powers
    later, spread, nearer = np.empty_like(values), np.empty_like(covariances), np.empty(len(values))
    for t in range(len(values)):
        ratio = _nearer(values[t, RANGE], rates[t, RANGE], dt)
        for k in range(QUANTITIES):
            step, q = dt * rates[t, k], noise[t, k]
            later[t, k] = values[t, k] + (step * ratio if k < 2 else step)
            if drifting:
                later[t, k] += dt * drifts[t, k]
            p, c, r = covariances[t, k, 0], covariances[t, k, 1], covariances[t, k, 2]
            spread[t, k, 0] = p + 2 * dt * c + square * r + q * cube / 3
            spread[t, k, 1] = c + dt * r + q * square / 2
            spread[t, k, 2] = r + q * dt
        rates[t, :2] *= ratio * ratio
        rates[t, 2:4] *= ratio
        nearer[t] = _nearer(later[t, RANGE], rates[t, RANGE], dt)
    return later, spread, nearer


@njit(cache=True, nogil=True)
def _nearer(distance: float, rate: float, dt: float) -> float:
    """A range over that in dt seconds, 1 where it is unknown."""
    ratio = distance / np.maximum(distance + dt * rate, 1.0)
    return min(max(ratio, _NEARER[0]), _NEARER[1]) if np.isfinite(ratio) else 1.0


@njit(cache=True, nogil=True)
def _update(
    values: np.ndarray,
    rates: np.ndarray,
    covariances: np.ndarray,
    rows: np.ndarray,
    measured: np.ndarray,
    noise: np.ndarray,
    first_rates: np.ndarray,
) -> None:
    """Take in measurements (M, 8) of rows, with variances `noise`, in place; NaN tells nothing."""
    for m in range(len(rows)):
        t = rows[m]
        for k in range(QUANTITIES):
            if not np.isfinite(measured[m, k]):
                continue
            p, c, r = covariances[t, k, 0], covariances[t, k, 1], covariances[t, k, 2]
            if np.isfinite(values[t, k]):
                gain, rate_gain = p / (p + noise[m, k]), c / (p + noise[m, k])
                error = measured[m, k] - values[t, k]
                values[t, k] += gain * error
                rates[t, k] += rate_gain * error
                p, c, r = (1 - gain) * p, (1 - gain) * c, r - rate_gain * c
            else:
                values[t, k], rates[t, k] = measured[m, k], 0.0
                p, c, r = noise[m, k], 0.0, first_rates[m, k]
            covariances[t, k, 0], covariances[t, k, 1], covariances[t, k, 2] = p, c, r


def measure(boxes: np.ndarray, depths: np.ndarray, boxes3d: np.ndarray | None) -> np.ndarray:
    """(N, 8) float64 measurements of the quantities, NaN where there is none.

    Args:
        boxes: (N, 4) xyxy in pixels.
        depths: (N,) metres, 0 or not finite where unknown.
        boxes3d: (N, 7) as in Instances, or None.
    """
    out = np.full((len(boxes), QUANTITIES), np.nan)
    boxes = boxes.astype(np.float64)
    out[:, :2] = (boxes[:, :2] + boxes[:, 2:]) / 2
    out[:, 2:4] = np.log(np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0))
    available = np.isfinite(depths) & (depths > 0)
    out[available, RANGE] = depths[available]
    if boxes3d is not None:
        out[:, 5:] = boxes3d[:, :3]
    return out


def measurement_noise(measured: np.ndarray) -> np.ndarray:
    """(N, 8) standard deviations: boxes err with their size, ranges with the distance."""
    sides = np.exp(measured[:, 2:4])
    out = np.empty_like(measured)
    out[:, :2] = 1.0 + 0.04 * sides
    out[:, 2:4] = 0.04 + 1.0 / sides
    out[:, RANGE] = 0.3 + 0.02 * measured[:, RANGE]
    out[:, 5:] = 0.4
    return out


def _doubt(hidden: np.ndarray | float, scores: np.ndarray | float) -> np.ndarray:
    """(N, 1) times the usual noise: outlines of what is hidden or faint are guesses."""
    doubt = 1.0 + _GUESSED * np.asarray(hidden) + _FAINT * (1.0 - np.asarray(scores))
    return np.asarray(doubt.reshape(-1, 1))


def _first_rates(measured: np.ndarray) -> np.ndarray:
    """(N, 8) standard deviations of the rates at first sight: any traffic, at any distance."""
    sides = np.exp(measured[:, 2:4])
    out = np.empty_like(measured)
    out[:, :2] = 60.0 + 0.5 * sides
    out[:, 2:4] = 0.4
    out[:, RANGE:] = 12.0
    return out


def _accelerations(values: np.ndarray) -> np.ndarray:
    """(T, 8) densities of the white acceleration; what a turning camera adds, see `stir`."""
    sides = np.exp(values[:, 2:4])
    out = np.empty_like(values)
    out[:, :2] = 12.0 + 0.12 * sides
    out[:, 2:4] = 0.1
    out[:, RANGE:] = 3.0
    return out
