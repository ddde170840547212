"""Where the parts of an actor are: rolling wheels, walking legs, turning pedals."""

from __future__ import annotations

import math

import numpy as np

from amodal_core.synthetic.assets import MAX_PARTS, Asset, Motion
from amodal_core.synthetic.mesh import rotation_y
from amodal_core.synthetic.people import CRANK, CRANK_LENGTH, GRIP, SADDLE

DEVELOPMENT = 5.5  # metres that a bicycle goes in a turn of its cranks
STRIDE = 1.45  # metres of a walking cycle (two steps) of a grown person


def part_matrices(asset: Asset, travelled: float, speed: float) -> np.ndarray:
    """(MAX_PARTS, 4, 4) local transforms of an asset's parts.

    Args:
        asset: what moves.
        travelled: metres since the drive began; its fraction is the phase of wheels and steps.
        speed: metres a second; a standing person's limbs hang.
    """
    parts = np.broadcast_to(np.eye(4), (MAX_PARTS, 4, 4)).copy()
    if asset.motion is Motion.WHEELS:
        for k in range(1, len(asset.joints)):
            if k < MAX_PARTS:
                parts[k] = rotation_y(travelled / asset.wheel_radius, asset.joints[k])
    elif asset.motion is Motion.WALK:
        _walk(parts, asset, travelled, speed)
    else:
        _cycle(parts, asset, travelled)
    return parts


def _walk(parts: np.ndarray, asset: Asset, travelled: float, speed: float) -> None:
    height = asset.size[2]
    cycle = 2 * np.pi * travelled / (STRIDE * height / 1.73)
    effort = min(speed / 1.3, 1.3)
    joints = asset.joints
    lowest = np.inf
    for j, phase in enumerate((cycle, cycle + np.pi)):
        thigh = -effort * (0.44 * np.sin(phase) + 0.06)
        knee = effort * (0.12 + 0.75 * max(0.0, np.cos(phase)) ** 2)
        parts[6 + j] = rotation_y(thigh, joints[5 + j])
        parts[8 + j] = parts[6 + j] @ rotation_y(knee, joints[7 + j])
        arm = effort * 0.42 * np.sin(phase)
        parts[2 + j] = rotation_y(arm, joints[1 + j])
        parts[4 + j] = parts[2 + j] @ rotation_y(
            -0.18 - effort * (0.2 + 0.2 * np.sin(-phase)), joints[3 + j]
        )
        knee_at = joints[7 + j]
        sole = parts[8 + j] @ [knee_at[0], knee_at[1], 0.0, 1.0]
        lowest = min(lowest, sole[2])
    parts[:, 2, 3] -= lowest  # the standing foot rests on the ground


def _cycle(parts: np.ndarray, asset: Asset, travelled: float) -> None:
    hip0, neck, shoulder0, shoulder1, elbow0, elbow1, _, hip1, knee0, knee1, wrist0, ankle0 = (
        asset.joints
    )
    for part, x in ((1, -0.52), (2, 0.54)):
        parts[part] = rotation_y(travelled / asset.wheel_radius, (x, 0, asset.wheel_radius))
    turn = 2 * np.pi * travelled / DEVELOPMENT
    parts[13] = rotation_y(turn, CRANK)
    seat = np.eye(4)
    seat[:3, 3] = SADDLE + np.array([0.0, 0.0, 0.1]) - np.array([hip0[0], 0, hip0[2]])
    pelvis = SADDLE + np.array([0.0, 0.0, 0.1])
    lean = rotation_y(0.62, pelvis) @ seat
    parts[3] = lean
    head = lean @ np.append(neck, 1.0)
    parts[4] = rotation_y(-0.5, head[:3]) @ lean
    upper_leg, lower_leg = math.dist(hip0, knee0), math.dist(knee0, ankle0)
    upper_arm, lower_arm = math.dist(shoulder0, elbow0), math.dist(elbow0, wrist0)
    for j, (hip, knee, shoulder, elbow) in enumerate(
        ((hip0, knee0, shoulder0, elbow0), (hip1, knee1, shoulder1, elbow1))
    ):
        side = 1 - 2 * j
        pedal = CRANK + rotation_y(turn)[:3, :3] @ np.array([CRANK_LENGTH * side, 0, 0])
        pedal = pedal + np.array([-0.06, 0.0, ankle0[2] + 0.03])
        start = (seat @ np.append(hip, 1.0))[:3]
        first, second = _two_link(start, pedal, upper_leg, lower_leg, bend=1.0)
        parts[9 + j] = rotation_y(first, start) @ seat
        knee_now = (parts[9 + j] @ np.append(knee, 1.0))[:3]
        parts[11 + j] = rotation_y(second, knee_now) @ _moved(knee_now - knee)
        start = (lean @ np.append(shoulder, 1.0))[:3]
        grip = GRIP * [1, side, 1]
        first, second = _two_link(start, grip, upper_arm, lower_arm, bend=-1.0)
        parts[5 + j] = rotation_y(first, start) @ _moved(start - shoulder)
        elbow_now = (parts[5 + j] @ np.append(elbow, 1.0))[:3]
        parts[7 + j] = rotation_y(second, elbow_now) @ _moved(elbow_now - elbow)


def _moved(by: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = by
    return matrix


def _two_link(
    start: np.ndarray, end: np.ndarray, upper: float, lower: float, bend: float
) -> tuple[float, float]:
    """Turns about y that bring two hanging links from start to end in the x-z plane.

    A link hanging along -z turned by an angle a points to (-sin a, -cos a); bend +1 puts the joint
    forward (a knee), -1 backward (an elbow).
    """
    dx, dz = end[0] - start[0], end[2] - start[2]
    reach = np.clip(np.hypot(dx, dz), abs(upper - lower) + 1e-3, upper + lower - 1e-3)
    direction = np.arctan2(-dx, -dz)
    at_start = np.arccos(np.clip((upper**2 + reach**2 - lower**2) / (2 * upper * reach), -1, 1))
    at_end = np.arccos(np.clip((lower**2 + reach**2 - upper**2) / (2 * lower * reach), -1, 1))
    return direction - bend * at_start, direction + bend * at_end
