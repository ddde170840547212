"""What the arguments of pipeline.launch.py mean; whatever is malformed is one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amodal_core.bags.reader import BagReader, is_bag
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.topics import (
    CAMERA_INFO,
    GROUND_TRUTH,
    IMAGE,
    NO_LIDAR,
    POINTS,
    find_topics,
    infos_beside,
)
from amodal_core.errors import InputError, foreign
from amodal_core.settings import checked, parse_rules
from amodal_core.yaml_texts import parse_yaml
from amodal_ros.declarations import RATES, parameters_of

# The drive's settings that are arguments, with what they are for; empty: the nodes' own default.
DRIVE = {
    "calibration": "file of camera_calibration, KITTI or Kalibr in place of camera_info",
    "extrinsics": "camera_from_lidar x,y,z,qx,qy,qz,qw in place of the transforms",
    "rectify": "rectify images here; auto: what distorts and is not named image_rect",
    "minimum_range": "metres; nearer returns are dropped",
    "motion": "move scans to the image's time, where the vehicle's motion is known",
    "fixed_frame": "frame to which transforms tell the motion; empty: odom, map, world or earth",
}
_TOPICS = (IMAGE, CAMERA_INFO, POINTS, GROUND_TRUTH)
_PLACE = "{camera}"  # in an argument: each camera's name
_FORMS = {
    "extrinsics": "x,y,z,qx,qy,qz,qw: metres and a quaternion",
    "minimum_range": "metres, such as 0.5",
    "points_offset": "seconds, such as 0.003, or auto",
    "rate": f"a number from {RATES[0]:g} to {RATES[1]:g}, such as 1.0",
}


@dataclass(frozen=True)
class Camera:
    """One camera of a launch.

    Attributes:
        name: a level of the namespace of its nodes; "" for the only one of a launch.
        topics: its image, camera_info, points and ground_truth.
        drive: parameters of the nodes that read sensors, as far as they are given.
    """

    name: str
    topics: dict[str, str]
    drive: dict[str, Any] = field(default_factory=dict)

    @property
    def camera_only(self) -> bool:
        """Whether it has no LiDAR."""
        return self.topics[POINTS.name] == NO_LIDAR

    def topic(self, name: str) -> str:
        """An output of its nodes, in the namespace of the launch."""
        return f"{self.name}/{name}" if self.name else name

    def namespace(self, base: str) -> str:
        """Of its nodes, in that of the launch."""
        return f"{base.rstrip('/')}/{self.name}" if self.name else base


def check(value: Mapping[str, str]) -> None:
    """Whether a launch's arguments, as far as they are given, are what they should be.

    Raises:
        InputError: one is not; nothing was started or written.
    """
    cameras(value)
    rate(value)
    for name in ("settings", "tracker_settings"):
        rules = [rule for rule in value.get(name, "").split(",") if rule.strip()]
        parse_rules(rules, f"launch argument {name}")
    bag = value.get("bag", "")
    path = Path(bag).expanduser()
    if bag and not (path.exists() and is_bag(path)):
        raise InputError("this is no bag", f"launch argument bag: {bag}", "give a bag's folder")
    file = value.get("params_file", "")
    if file and not Path(file).is_file():
        raise InputError("there is no such file", f"launch argument params_file: {file}")


def rate(value: Mapping[str, str]) -> float:
    """The speed of the bag.

    Raises:
        InputError: it is no number in its range.
    """
    number = _number("rate", value.get("rate", "1.0"))
    if not RATES[0] <= number <= RATES[1]:
        raise _malformed("rate", value["rate"])
    return number


def cameras(value: Mapping[str, str]) -> list[Camera]:
    """The cameras of a launch, one at least.

    Raises:
        InputError: an argument or the file of cameras is malformed.
    """
    given = value.get("cameras", "").strip()
    topics = {t.name: value.get(t.name) or t.bag_name for t in _TOPICS}
    usual = {p.name: str(p.default) for p in parameters_of(DriveSettings)}
    common = {name: value.get(name, "") for name in (*DRIVE, "points_offset")}
    common = {name: text for name, text in common.items() if text != usual[name]}
    if given.endswith((".yaml", ".yml")):
        rows = _rows(Path(given).expanduser())
        where = f"{given} camera"
    else:
        rows = [{"name": name.strip()} for name in given.split(",")] if given else []
        where = "launch arguments of camera"
    if not rows:
        settings = _drive(common, "launch argument")
        return [Camera("", _topics_of_one(topics, value.get("bag", ""), settings), settings)]
    if topics[CAMERA_INFO.name] == CAMERA_INFO.bag_name:
        topics[CAMERA_INFO.name] = ""  # beside each camera's image
    if not value.get(GROUND_TRUTH.name):
        topics[GROUND_TRUTH.name] = f"/{_PLACE}/{GROUND_TRUTH.name}"
    result = []
    for row in rows:
        name = str(row["name"])
        own = {k: str(row.get(k, text)).replace(_PLACE, name) for k, text in topics.items()}
        if not own[CAMERA_INFO.name]:
            own[CAMERA_INFO.name] = infos_beside(own[IMAGE.name])[0]
        drive: dict[str, Any] = {k: v.replace(_PLACE, name) for k, v in common.items()}
        drive |= {k: v for k, v in row.items() if k in usual}
        result.append(Camera(name, own, _drive(drive, f"{where} {name}:")))
    _check_apart(result, given)
    return result


def _topics_of_one(topics: dict[str, str], bag: str, drive: Mapping[str, Any]) -> dict[str, str]:
    """The topics of the only camera: what is left to the defaults is of the image and the bag.

    Raises:
        InputError: the bag has other topics than the default ones, and none or several to choose.
    """
    left = {t.name for t in (IMAGE, CAMERA_INFO, POINTS) if topics[t.name] == t.bag_name}
    if CAMERA_INFO.name in left and IMAGE.name not in left:
        topics = topics | {CAMERA_INFO.name: infos_beside(topics[IMAGE.name])[0]}
    if not bag or not left:
        return topics
    try:
        reader = BagReader(Path(bag).expanduser())
    except InputError:
        return topics  # the player says why
    with reader:
        left = {name for name in left if topics[name] not in reader.topics}
        if not left:
            return topics
        image, points = ("" if n in left else topics[n] for n in (IMAGE.name, POINTS.name))
        found = find_topics(
            reader,
            image,
            points,
            lidar_optional=points == NO_LIDAR,
            info_optional="calibration" in drive,
        )
    own = {
        IMAGE.name: found.image,
        CAMERA_INFO.name: found.camera_info,
        POINTS.name: found.points,
    }
    return topics | {name: own[name] for name in left if own[name]}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The entries of a file of cameras."""
    form = "a list, of each camera its name, and image, camera_info, points, extrinsics, ..."
    where = f"launch argument cameras: {path}"
    with foreign(where, "cannot be read", form):
        text = path.read_bytes()
    rows = parse_yaml(text, where, "cannot be read", form)
    valid = {"name", *(t.name for t in _TOPICS), *DRIVE, "points_offset"}
    if not isinstance(rows, list) or not rows:
        raise InputError("no list of cameras", where, form)
    for row in rows:
        if not isinstance(row, dict) or "name" not in row:
            raise InputError("a camera without a name", str(path), form)
        unknown = sorted(set(map(str, row)) - valid)
        if unknown:
            listed = f"there are: {', '.join(sorted(valid))}"
            raise InputError(f"camera {row['name']} has '{unknown[0]}'", str(path), listed)
    return rows


def _check_apart(cameras: list[Camera], given: str) -> None:
    where = f"launch argument cameras: {given}"
    names = [camera.name for camera in cameras]
    for name in names:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            cure = "letters, digits and _, as in front,left"
            raise InputError(f"'{name}' is no name of a camera", where, cure)
        if names.count(name) > 1:
            raise InputError(f"two cameras are '{name}'", where, "give each its own name")
    images = [camera.topics[IMAGE.name] for camera in cameras]
    twice = next((image for image in images if images.count(image) > 1), None)
    if twice is not None:
        cure = f"give the place of the name, as in image:=/{_PLACE}/image_raw"
        raise InputError(f"{twice} is the image of several cameras", where, cure)


def _drive(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Parameters from what arguments or a file of cameras say; what is empty is left out."""
    drive = {name: v for name, v in given.items() if not (isinstance(v, str) and not v.strip())}
    if drive.get("points_offset") == "auto":
        del drive["points_offset"]
        drive["auto_points_offset"] = True
    for name in ("minimum_range", "points_offset"):
        if name in drive:
            drive[name] = _number(name, drive[name], where)
    if "extrinsics" in drive:
        text = drive["extrinsics"]
        numbers = text.split(",") if isinstance(text, str) else text
        if not isinstance(numbers, list) or len(numbers) != 7:
            raise _malformed("extrinsics", text, where)
        drive["extrinsics"] = [_number("extrinsics", n, where, text) for n in numbers]
    if "calibration" in drive:
        path = Path(str(drive["calibration"])).expanduser()
        if not path.is_file():
            raise InputError("there is no such file", f"{where} calibration: {path}")
        drive["calibration"] = str(path.resolve())
    checked(DriveSettings, drive, where)
    return drive


def _number(name: str, text: Any, where: str = "launch argument", whole: Any = None) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise _malformed(name, text if whole is None else whole, where) from None


def _malformed(name: str, text: Any, where: str = "launch argument") -> InputError:
    return InputError(f"'{text}' is not valid", f"{where} {name}", _FORMS[name])
