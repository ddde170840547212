"""The closed-form filters are the textbook's Kalman filter; the evidence reads scenes rightly."""

from __future__ import annotations

import numpy as np
import pytest

from amodal_core.frame import Calibration
from amodal_core.masks.mask_set import RleMasks
from amodal_core.tracking.association import Appearance, affinity, assign, within_image
from amodal_core.tracking.evidence import weigh_evidence
from amodal_core.tracking.motion import RANGE, Motion, measure, measurement_noise

SIZE = (40, 60)


def measured_range(metres: float) -> np.ndarray:
    return measure(np.array([[100.0, 100, 140, 130]]), np.array([metres]), None)


def test_the_range_filter_is_the_textbooks(rng: np.random.Generator) -> None:
    # With matrices: F, Q of white acceleration, H = [1 0], Joseph form.
    motion = Motion.started(measured_range(20.0))
    x = np.array([20.0, 0.0])
    P = np.diag([measurement_noise(measured_range(20.0))[0, RANGE] ** 2, 12.0**2])
    for step in range(30):
        dt = float(rng.uniform(0.0, 0.3))
        F = np.array([[1, dt], [0, 1]])
        Q = 3.0**2 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        x, P = F @ x, F @ P @ F.T + Q
        motion.predict(dt)
        z = 20.0 - step * 0.4 + rng.normal(0, 0.3)
        if step % 4:
            measured = measured_range(z)
            R = measurement_noise(measured)[0, RANGE] ** 2
            H = np.array([[1.0, 0.0]])
            K = P @ H.T / (H @ P @ H.T + R)
            x = x + K[:, 0] * (z - x[0])
            J = np.eye(2) - K @ H
            P = J @ P @ J.T + K @ K.T * R
            motion.update(np.array([0]), measured)
        got = motion.values[0, RANGE], motion.rates[0, RANGE]
        np.testing.assert_allclose(got, x, rtol=1e-9)
        p, c, r = motion.covariances[0, RANGE]
        np.testing.assert_allclose([[p, c], [c, r]], P, rtol=1e-9, atol=1e-12)


def test_a_range_that_is_known_later_is_filtered_as_from_its_first_measurement() -> None:
    late = Motion.started(measured_range(np.nan))
    late.update(np.array([0]), measured_range(20.0))
    first = Motion.started(measured_range(20.0))
    for k in range(3):
        np.testing.assert_array_equal(late.covariances[0, RANGE], first.covariances[0, RANGE])
        assert (late.values[0, RANGE], late.rates[0, RANGE]) == (
            first.values[0, RANGE],
            first.rates[0, RANGE],
        )
        for motion in (late, first):
            motion.predict(0.1)
            motion.update(np.array([0]), measured_range(19.0 - k))


def test_a_steady_motion_in_space_is_learnt_and_extrapolated() -> None:
    def at(t: float) -> np.ndarray:
        # Something that comes nearer and crosses: X and Z change steadily, its image ever faster.
        x, z = -6 + 2.0 * t, 30 - 6 * t
        u, side = 300 + 600 * x / z, 600 * 1.5 / z
        box = np.array([[u - side / 2, 50 - side / 2, u + side / 2, 50 + side / 2]])
        return measure(box, np.array([z]), np.array([[10 + 3 * t, 2, 0, 4, 2, 1.5, 0]]))

    motion = Motion.started(at(0))
    for k in range(1, 21):
        motion.predict(0.1)
        motion.update(np.array([0]), at(0.1 * k))
    for _ in range(10):
        motion.predict(0.1)
    constant = at(2.0)[0, 0] + 10 * (at(2.0) - at(1.9))[0, 0]
    assert abs(motion.values[0, 0] - at(3.0)[0, 0]) < 0.3 * abs(constant - at(3.0)[0, 0])
    np.testing.assert_allclose(motion.values[0, 4:], at(3.0)[0, 4:], rtol=0.03, atol=0.5)


def test_what_comes_near_quickly_grows_as_its_range_says() -> None:
    def at(z: float) -> np.ndarray:
        side = 600 * 1.5 / z
        box = np.array([[300 - side / 2, 50 - side / 2, 300 + side / 2, 50 + side / 2]])
        return measure(box, np.array([z]), None)

    motion = Motion.started(at(24.0))
    for k in range(1, 13):
        motion.predict(0.1)
        motion.update(np.array([0]), at(24 - 1.35 * k))
    for k in range(13, 16):
        motion.predict(0.1)
        # 7.8 to 3.8 m: 1.7 to 3.6 times as large a second.
        np.testing.assert_allclose(motion.values[0, 2:4], at(24 - 1.35 * k)[0, 2:4], atol=0.12)


def test_velocities_are_exact_once_learnt_and_unknown_before() -> None:
    """A 3D box at (3, -1.5, 0.2) m/s, its image at (-40, 12) px/s; another that is never in 3D."""

    def at(t: float) -> np.ndarray:
        u, v = 300 - 40 * t, 50 + 12 * t
        boxes = np.array([[u - 20, v - 15, u + 20, v + 15], [10, 10, 30, 25]])
        boxes3d = np.full((2, 7), np.nan)
        boxes3d[0] = 15 + 3 * t, -1.5 * t, 0.2 * t, 4, 2, 1.5, 0
        return measure(boxes, np.array([0.0, 0.0]), boxes3d)

    both = np.array([0, 1])
    motion = Motion.started(at(0))
    assert all(np.isnan(v).all() for v in motion.velocities())
    for k in range(1, 41):
        motion.predict(0.1)
        assert k > 1 or all(np.isnan(v).all() for v in motion.velocities())
        motion.update(both, at(0.1 * k))
        in_space, in_image = motion.velocities()
        assert np.isfinite(in_space[0]).all()
        assert np.isfinite(in_image).all()
        assert np.isnan(in_space[1]).all()
    np.testing.assert_allclose(in_space[0], [3, -1.5, 0.2], atol=0.01)
    np.testing.assert_allclose(in_image, [[-40, 12], [0, 0]], atol=0.1)
    motion.predict(3.0)  # coasting: still known; after a minute it may be anywhere
    assert np.isfinite(motion.velocities()[0][0]).all()
    motion.predict(60.0)
    assert np.isnan(motion.velocities()[0]).all()


def driven(speed: float, turn: float, way: np.ndarray, carried: bool, seconds: int = 10) -> Motion:
    """One object seen ten times at 10 Hz from a vehicle, then predicted for some tenths.

    Args:
        speed: of the vehicle, m/s, ahead.
        turn: of the vehicle to the left, rad/s.
        way: (2,) ground velocity of the object, which begins 40 m ahead and 8 m to the right.
        carried: whether the tracker is told the vehicle's motion.
        seconds: tenths of a second without a sight.
    """
    calibration = Calibration(
        np.array([[360.0, 0, 310], [0, 360, 94], [0, 0, 1]]),
        np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
        621,
        188,
    )

    def lidar(k: int) -> np.ndarray:
        out, angle = np.eye(4), turn * 0.1 * k
        out[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        # Its exact arc.
        length, half = speed * 0.1 * k, angle / 2
        out[:2, 3] = length * np.sinc(half / np.pi) * np.array([np.cos(half), np.sin(half)])
        return out

    def at(k: int) -> np.ndarray:
        place = np.array([40 + way[0] * 0.1 * k, -8 + way[1] * 0.1 * k, 0, 1])
        x, y, z, _ = np.linalg.solve(lidar(k), place)
        u, v = 310.5 - 360 * y / x, 94.5 - 360 * z / x
        half = 360 / x
        box = np.array([[u - half, v - half, u + half, v + half]])
        return measure(box, np.array([x]), np.array([[x, y, z, 4, 2, 1.5, 0]]))

    motion = Motion.started(at(0))
    for k in range(1, 10 + seconds):
        if carried:
            step = np.linalg.solve(lidar(k), lidar(k - 1))
            motion.carry(step, calibration, 0.1)
        motion.predict(0.1, carried=carried)
        if k < 10:
            motion.update(np.array([0]), at(k))
    motion.values -= at(9 + seconds)  # what is left is the error
    return motion


@pytest.mark.parametrize("way", [(0.0, 0.0), (12.0, 0.0), (3.0, 1.0)])
def test_over_ground_predictions_are_right_while_the_vehicle_turns(
    way: tuple[float, float],
) -> None:
    ahead = driven(10.0, 0.25, np.array(way), carried=True)
    assert np.abs(ahead.values[0, :2]).max() < 1.0  # pixels, after a second unseen
    np.testing.assert_allclose(ahead.values[0, RANGE:], 0, atol=0.15)
    alone = driven(10.0, 0.25, np.array(way), carried=False)
    assert abs(alone.values[0, 0]) > 5.0


def test_velocities_stay_relative_to_the_lidar_whatever_the_tracker_knows() -> None:
    for carried in (False, True):
        space, _ = driven(10.0, 0.0, np.array([4.0, 0.0]), carried, seconds=0).velocities()
        np.testing.assert_allclose(space[0], [-6, 0, 0], atol=0.4)


def test_a_vehicle_whose_motion_is_lost_goes_on_as_it_did() -> None:
    known = driven(10.0, 0.0, np.zeros(2), carried=True, seconds=0)
    place, drift = known.values.copy(), known.drifts.copy()
    known.predict(0.1)
    np.testing.assert_allclose(
        known.values[0, 5:], (place + 0.1 * (drift + known.rates))[0, 5:], atol=1e-9
    )
    assert drift[0, 5] == pytest.approx(-10.0, abs=1e-6)


def test_what_was_faint_or_hidden_when_it_was_first_seen_is_soon_corrected() -> None:
    sharp, faint = (
        Motion.started(measured_range(20.0)),
        Motion.started(measured_range(20.0), np.array([0.6]), np.array([0.3])),
    )
    for motion in (sharp, faint):
        motion.update(np.array([0]), measured_range(30.0))
    assert sharp.values[0, RANGE] < 27
    assert faint.values[0, RANGE] > 29


def test_a_box_that_loses_one_side_does_not_fly_away() -> None:
    amodal, cut = np.array([[364.0, 180, 522, 240]]), np.array([[442.0, 180, 522, 240]])
    motion = Motion.started(measure(amodal, np.array([20.0]), None))
    motion.predict(0.1)
    motion.update(np.array([0]), measure(cut, np.array([20.0]), None))
    motion.predict(0.5)
    assert abs(motion.values[0, 0] - 482) < 60  # its own half width of travel, not a car's length


def test_what_is_not_measured_stays_unknown_until_it_is() -> None:
    box = np.array([[10.0, 10, 30, 30]])
    motion = Motion.started(measure(box, np.array([0.0]), None))
    motion.predict(0.1)
    motion.update(np.array([0]), measure(box, np.array([np.nan]), None))
    assert np.isnan(motion.ranges()[0])
    motion.update(np.array([0]), measure(box, np.array([12.0]), None))
    motion.predict(0.1)
    assert motion.ranges()[0] == pytest.approx(12.0)
    assert np.isfinite(motion.boxes()).all()


def test_only_the_rows_that_were_measured_change() -> None:
    motion = Motion.started(np.concatenate([measured_range(r) for r in (5.0, 10.0, 20.0)]))
    motion.update(np.array([1]), measured_range(11.0))
    assert motion.values[[0, 2], RANGE].tolist() == [5.0, 20.0]
    assert 10 < motion.values[1, RANGE] < 11


def test_assignment_takes_the_best_total_and_respects_gates() -> None:
    fits = np.array([[0.9, 0.8, -np.inf], [0.85, 0.1, -np.inf]])
    rows, columns = assign(fits, 0.2)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (1, 0)]
    rows, columns = assign(fits, 0.82)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 0)]
    assert len(assign(np.full((2, 3), -np.inf), 0.2)[0]) == 0
    assert len(assign(np.zeros((0, 3)), 0.2)[0]) == 0


def test_whole_masks_tell_who_it_is_when_other_parts_are_seen() -> None:
    box = np.array([[10.0, 10, 40, 30]])
    amodal = RleMasks.from_boxes(box, SIZE)
    left = RleMasks.from_boxes(np.array([[10, 10, 20, 30]]), SIZE)
    right = RleMasks.from_boxes(np.array([[30, 10, 40, 30]]), SIZE)
    measured = measure(box, np.array([20.0]), None)
    kind = np.zeros(1, np.int64)

    def fit(range_error: float = 0.0, other_class: int = 0) -> float:
        return affinity(
            Appearance(amodal, left, kind, None),
            box,
            Motion.started(measured),
            Appearance(amodal, right, kind + other_class, None),
            measure(box, np.array([20.0 + range_error]), None),
            0.12,
        )[0, 0]

    assert fit() == pytest.approx(1.0)
    assert fit() > fit(1.0) > fit(3.0) > 0.5
    assert fit(5.0) == -np.inf
    assert fit(other_class=1) == pytest.approx(0.85)


def evidence_of(
    depth_inside: float | None,
    share: float = 1.0,
    others: tuple[tuple[int, int, int, int], ...] = (),
    other_depth: float = 8.0,
    expected: float = 20.0,
    deviation: float = 0.5,
) -> tuple[bool, bool]:
    """Hidden and absent of a track expected in a box, a share of which returns from a depth."""
    mask = RleMasks.from_boxes(np.array([[10, 10, 40, 30]]), SIZE)
    depth = None
    if depth_inside is not None:
        depth = np.zeros(SIZE, np.float32)
        depth[10:30:2, 10:40:3] = 20.0
        depth[10:30:2, 10 : 10 + int(30 * share) : 3] = depth_inside
    others_visible = RleMasks.from_boxes(np.array(others).reshape(-1, 4), SIZE)
    depths = np.full(len(others_visible), other_depth, np.float32)
    evidence = weigh_evidence(
        mask, np.array([expected]), np.array([deviation]), others_visible, depths, depth
    )
    return bool(evidence.hidden[0]), bool(evidence.absent[0])


@pytest.mark.parametrize(
    ("inside", "share", "hidden", "absent"),
    [
        (8.0, 1.0, True, False),
        (8.0, 0.6, True, False),
        (8.0, 0.4, False, False),
        (17.0, 1.0, True, False),  # nearer by more than it may be misjudged
        (23.0, 1.0, False, True),
        (60.0, 1.0, False, True),
        (60.0, 0.4, False, False),
        (20.5, 1.0, False, False),
        (None, 1.0, False, False),
        (0.0, 1.0, False, False),
    ],
)
def test_returns_inside_the_expected_mask_tell(
    inside: float | None, share: float, hidden: bool, absent: bool
) -> None:
    assert evidence_of(inside, share) == (hidden, absent)


@pytest.mark.parametrize(
    ("expected", "deviation", "gap"),
    [(20.0, 0.5, 2.1), (60.0, 0.5, 3.3), (20.0, 2.0, 3.6), (20.0, 9.0, 4.6)],
)
def test_returns_tell_from_a_gap_on_that_grows_with_the_range_and_up_to_3_m_with_doubt(
    expected: float, deviation: float, gap: float
) -> None:
    for off, tells in ((gap - 0.05, False), (gap + 0.05, True)):
        nearer = evidence_of(expected - off, expected=expected, deviation=deviation)
        beyond = evidence_of(expected + off, expected=expected, deviation=deviation)
        assert (nearer, beyond) == ((tells, False), (False, tells))


def test_returns_beside_an_outline_in_its_box_say_nothing() -> None:
    dense = np.zeros((1, *SIZE), bool)
    dense[0, 10:30, 10:22] = dense[0, 10, 39] = True
    depth = np.full(SIZE, 20.0, np.float32)
    depth[:, 22:] = 8.0
    mask, none = RleMasks.from_dense(dense), RleMasks.empty(SIZE)
    evidence = weigh_evidence(mask, np.array([20.0]), np.array([0.5]), none, np.zeros(0), depth)
    assert (bool(evidence.hidden[0]), bool(evidence.absent[0])) == (False, False)


def test_a_nearer_mask_over_the_place_hides_and_a_farther_one_does_not() -> None:
    assert evidence_of(None, others=((5, 5, 30, 40),)) == (True, False)
    assert evidence_of(None, others=((5, 5, 20, 40),)) == (False, False)
    assert evidence_of(None, others=((5, 5, 30, 40),), other_depth=40.0)[0] is False
    assert evidence_of(None, others=((5, 5, 30, 40),), other_depth=0.0)[0] is True


def test_a_place_that_is_partly_covered_by_nearer_things_is_not_known_to_be_empty() -> None:
    mask = RleMasks.from_boxes(np.array([[10, 10, 40, 30]]), SIZE)
    none = RleMasks.empty(SIZE)
    depth = np.full(SIZE, 60.0, np.float32)
    for columns, absent in ((8, True), (11, False)):  # of thirty: 27 and 37 %
        depth[:, 10 : 10 + columns] = 8.0
        evidence = weigh_evidence(mask, np.array([20.0]), np.array([0.5]), none, np.zeros(0), depth)
        assert (bool(evidence.hidden[0]), bool(evidence.absent[0])) == (False, absent)
    # Nor one over which a nearer mask lies, however far its returns reach.
    assert evidence_of(60.0, others=((5, 5, 30, 40),)) == (True, False)


def test_two_nearer_masks_hide_together() -> None:
    assert evidence_of(None, others=((5, 5, 18, 40), (18, 5, 30, 40))) == (True, False)


def test_an_unknown_range_cannot_be_seen_through() -> None:
    assert evidence_of(60.0, expected=np.nan) == (False, False)


def test_few_returns_say_nothing() -> None:
    mask = RleMasks.from_boxes(np.array([[10, 10, 40, 30]]), SIZE)
    none = RleMasks.empty(SIZE)
    for count, hidden in ((5, False), (6, True)):
        depth = np.zeros(SIZE, np.float32)
        depth[np.linspace(11, 29, count).astype(int), 20] = 8.0
        evidence = weigh_evidence(mask, np.array([20.0]), np.array([0.5]), none, np.zeros(0), depth)
        assert bool(evidence.hidden[0]) == hidden


def test_what_rises_above_the_scan_is_not_hidden_by_what_stands_at_its_foot() -> None:
    mask = RleMasks.from_boxes(np.array([[10, 10, 40, 30]]), SIZE)
    none = RleMasks.empty(SIZE)
    for first, hidden in ((23, False), (22, True)):  # 7 and 8 of 20 rows have returns, all nearer
        depth = np.zeros(SIZE, np.float32)
        depth[first:30, 10:40] = 8.0
        evidence = weigh_evidence(mask, np.array([20.0]), np.array([0.5]), none, np.zeros(0), depth)
        assert bool(evidence.hidden[0]) == hidden


def test_what_slides_over_an_object_does_not_give_it_its_own_motion() -> None:
    """At rest for two seconds, then its right side is hidden and the outline follows what shows."""

    def at(width: float) -> np.ndarray:
        return measure(np.array([[100.0, 100, 100 + width, 130]]), np.array([20.0]), None)

    rates = []
    for told in (True, False):
        motion = Motion.started(at(40))
        for k in range(24):
            hidden = 0.2 * max(k - 19, 0)
            motion.predict(0.1)
            share = np.array([hidden])
            motion.update(np.array([0]), at(40 * (1 - hidden)), share if told else 0.0)
        rates.append(abs(motion.rates[0, 0]))
    assert rates[0] < 0.6 * rates[1]


def test_a_faint_sight_moves_a_track_less_than_a_sure_one() -> None:
    moved = []
    for score in (1.0, 0.5, 0.1):
        motion = Motion.started(measured_range(20.0))
        motion.predict(0.1)
        motion.update(np.array([0]), measured_range(23.0), scores=np.array([score]))
        moved.append(motion.values[0, RANGE] - 20)
    assert 3 > moved[0] > moved[1] > moved[2] > 0
    # Without doubt, one of nothing hidden is measured as ever.
    noise = measurement_noise(measured_range(23.0))[0, RANGE] ** 2
    motion = Motion.started(measured_range(20.0))
    motion.predict(0.1)
    p = motion.covariances[0, RANGE, 0]
    assert moved[0] == pytest.approx(3 * p / (p + noise))


def test_a_camera_that_begins_to_turn_makes_velocities_uncertain_by_as_much() -> None:
    motion = Motion.started(measured_range(20.0))
    before = motion.covariances.copy()
    motion.stir(np.array([1.0, -0.5]), 0.1)  # a pixel is no turning
    np.testing.assert_array_equal(motion.covariances, before)
    motion.stir(np.array([-6.0, 0.0]), 0.1)
    # Five pixels beyond in 0.1 s: an acceleration of 1000 with u = a dt^2 / 2 and u' = a dt.
    gain = np.outer([0.5 * 0.1**2, 0.1], [0.5 * 0.1**2, 0.1]) * 1000**2
    expected = before.copy()
    expected[0, 0] += [gain[0, 0], gain[0, 1], gain[1, 1]]
    np.testing.assert_allclose(motion.covariances, expected)


def test_a_mask_just_as_far_hides_nothing() -> None:
    # The gap at 20 m is 2.1 m: half of it nearer is in front.
    assert evidence_of(None, others=((5, 5, 30, 40),), other_depth=19.5)[0] is False
    assert evidence_of(None, others=((5, 5, 30, 40),), other_depth=18.0)[0] is True


def pair(
    box: tuple[float, float, float, float],
    depth: float = 20.0,
    apart: float | None = None,
    first: tuple[float, float, float, float] = (100, 100, 140, 130),
) -> float:
    """Affinity of a track, 20 m away, and a detection whose boxes in space are so far apart."""
    at = [None if apart is None else np.array([[20, y, 0, 4, 2, 1.5, 0]]) for y in (0, apart)]
    return _affinity(np.array([first], float), np.array([box], float), depth, *at)


def _affinity(
    first: np.ndarray,
    other: np.ndarray,
    depth: float,
    first3d: np.ndarray | None,
    other3d: np.ndarray | None,
) -> float:
    size, kind = (200, 400), np.zeros(1, np.int64)
    masks, others = RleMasks.from_boxes(first, size), RleMasks.from_boxes(other, size)
    return float(
        affinity(
            Appearance(masks, masks, kind, None),
            first,
            Motion.started(measure(first, np.array([20.0]), first3d)),
            Appearance(others, others, kind, None),
            measure(other, np.array([depth]), other3d),
            0.12,
        )[0, 0]
    )


def test_which_pairs_are_impossible() -> None:
    # Overlapping by a third is enough however uncertain the place; beside it only what is close.
    assert np.isfinite(pair((118, 100, 158, 130)))
    assert pair((125, 100, 165, 130)) == -np.inf, "a neighbour, sharply off its predicted place"
    assert pair((220, 100, 260, 130)) == -np.inf
    assert pair((104, 133, 136, 160)) == -np.inf, "apart, and sharply off its predicted place"
    # Half as wide again is possible, six times is not.
    assert np.isfinite(pair((90, 92, 150, 138)))
    assert pair((20, 40, 260, 190)) == -np.inf
    # 2 m and 12 % of the range may differ.
    assert np.isfinite(pair((100, 100, 140, 130), 24.0))
    assert pair((100, 100, 140, 130), 25.0) == -np.inf


def test_what_the_border_cuts_off_is_known_by_its_place_in_space() -> None:
    # Of a car 200 pixels wide a strip of 8 is left, in which no outline is the other's.
    wide = (-150.0, 60.0, 50.0, 170.0)
    for strip in ((0.0, 60.0, 8.0, 110.0), (392.0, 60.0, 400.0, 110.0)):
        assert np.isfinite(pair(strip, apart=0.8, first=wide))
        assert pair(strip, apart=1.2, first=wide) == -np.inf, "another car"
        assert pair(strip, first=wide) == -np.inf, "nobody knows where either is"
    whole = (200.0, 60.0, 208.0, 110.0)
    assert pair(whole, apart=0.1, first=wide) == -np.inf, "what is seen whole looks as it should"


def test_of_a_prediction_the_camera_measures_what_lies_in_the_image():
    values = np.zeros((3, 8))
    # From -20 to 60 and 10 to 50; wholly inside; wholly outside.
    values[:, :4] = [
        [20, 30, np.log(80), np.log(40)],
        [100, 50, np.log(20), np.log(10)],
        [-50, 50, np.log(20), np.log(10)],
    ]
    values[:, 4:] = 7.0
    result = within_image(values, (100, 200))
    np.testing.assert_allclose(result[0, :4], [30, 30, np.log(60), np.log(40)])
    np.testing.assert_allclose(result[1:], values[1:])
    np.testing.assert_array_equal(result[:, 4:], 7.0)
