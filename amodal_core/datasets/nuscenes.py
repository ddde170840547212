"""nuScenes: one camera with LIDAR_TOP, annotated at key frames (2 Hz).

Images are undistorted and rectified as released; scans are compensated for the vehicle's motion
within a turn, and come at 20 Hz, images at 12 Hz. The LiDAR's own frame has x to the right and y
ahead: it is turned a quarter, so that x is ahead and y left.

Tables of the full release have gigabytes: they are read as streams, and what belongs to other
scenes, sensors or moments is not kept.

Caesar et al.: nuScenes: A multimodal dataset for autonomous driving, CVPR 2020.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amodal_core import limits
from amodal_core.datasets.base import Place, Rig
from amodal_core.datasets.categories import NUSCENES, NUSCENES_IGNORED
from amodal_core.datasets.image_files import read_image
from amodal_core.datasets.recorded import CLASSES, Cuboid, Recorded, box_in, nearest, rigid
from amodal_core.errors import InputError, foreign
from amodal_core.files import inside
from amodal_core.geometry.camera import Camera, make_camera

LIDAR = "LIDAR_TOP"
CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT",
           "CAM_BACK_RIGHT")  # fmt: skip
# Ours from nuScenes' LiDAR: x ahead is its y, y left is its -x.
_OURS_FROM_LIDAR = np.array([[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
# Hidden share by level of visibility (0-40, 40-60, 60-80, 80-100 % shown): the middle of each.
_HIDDEN = {"1": 0.8, "2": 0.5, "3": 0.3, "4": 0.1}
_BLOCK = 1 << 20  # letters of a table that are read at once
_LONGEST = 1 << 24  # letters of one of its rows


class _Shot(NamedTuple):
    """One image or scan: its file, nanoseconds, calibration, pose, moment, and whether a key."""

    file: str
    stamp: int
    calibrated: str
    pose: str
    sample: str
    key: bool
    size: tuple[int, int]


class NuScenes(Recorded):
    """A version of nuScenes, one video a scene.

    Args:
        path: the folder that holds `samples`, `sweeps` and `v1.0-*`, or a folder `v1.0-*`.
        version: such as "v1.0-mini", where the folder holds several.
        camera: one of CAMERAS.
        scene: the only one that is read, such as "scene-0061"; "" for all.
        sweeps: every image with its nearest scan, not key frames alone; only key frames have truth.
        masks: "" for boxes, "derived" for masks that are made of them.

    Raises:
        InputError: a table is missing or malformed, or there is no such version, scene or camera.
    """

    def __init__(
        self,
        path: str | Path,
        version: str = "",
        camera: str = CAMERAS[0],
        scene: str = "",
        sweeps: bool = False,
        masks: str = "",
    ) -> None:
        self.path = Path(path)
        self._tables = _tables(self.path, version)
        self.root = self._tables.parent
        super().__init__(f"nuscenes {self._tables.name} {camera}", masks)
        if camera not in CAMERAS:
            raise InputError(f"no camera '{camera}'", str(path), f"there are: {', '.join(CAMERAS)}")
        with foreign(self._tables, "malformed tables", "unpack nuScenes' metadata again"):
            self._read(camera, scene, sweeps)

    def _read(self, camera: str, scene: str, sweeps: bool) -> None:
        """Take from the tables what belongs to the camera, the LiDAR and the scenes."""
        scenes = {s["token"]: str(s["name"]) for s in self._rows("scene")}
        chosen = {t for t, name in scenes.items() if scene in ("", name)}
        if not chosen:
            some = ", ".join(sorted(scenes.values())[:5])
            raise InputError(f"no scene '{scene}'", str(self.path), f"there are: {some} ...")
        samples = {
            s["token"]: scenes[s["scene_token"]]
            for s in self._rows("sample")
            if s["scene_token"] in chosen
        }
        channels = {s["token"]: str(s["channel"]) for s in self._rows("sensor")}
        wanted = {
            c["token"]: (channels[c["sensor_token"]], c)
            for c in self._rows("calibrated_sensor")
            if channels[c["sensor_token"]] in (camera, LIDAR)
        }
        images, scans = self._read_shots(wanted, samples, sweeps)
        self._frames = self._paired(images, scans, samples)
        if not self._frames:
            what = f"no image of {camera}"
            raise InputError(what, str(self._tables / "sample_data.json"), "unpack all tables")
        shots = [s for image, scan, _ in self._frames for s in (image, scan) if s is not None]
        self._calibrated = {s.calibrated: self._calibration(wanted[s.calibrated][1]) for s in shots}
        poses = {s.pose for s in shots}
        self._poses = {
            p["token"]: rigid(p["translation"], p["rotation"], self._where("ego_pose"))
            for p in self._rows("ego_pose", lambda p: p["token"] in poses)
        }
        absent = poses - self._poses.keys()
        if absent:
            raise InputError(f"no pose {min(absent)}", self._where("ego_pose"), "unpack it again")
        self._read_annotations({i.sample for i, _, truth in self._frames if truth})

    def _where(self, table: str) -> str:
        return str(self._tables / f"{table}.json")

    def _rows(
        self, table: str, keep: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> Iterator[dict[str, Any]]:
        """The rows of a table; whatever of them is not as it should be is one error."""
        with foreign(self._where(table), "a malformed table", "unpack nuScenes' metadata again"):
            for row in json_rows(self._tables / f"{table}.json"):
                if keep(row):
                    yield row

    def _read_shots(
        self, wanted: dict[str, tuple[str, Any]], samples: dict[str, str], sweeps: bool
    ) -> tuple[list[_Shot], list[_Shot]]:
        images: list[_Shot] = []
        scans: list[_Shot] = []
        for row in self._rows(
            "sample_data",
            lambda r: (
                r["calibrated_sensor_token"] in wanted
                and r["sample_token"] in samples
                and (sweeps or bool(r["is_key_frame"]))
            ),
        ):
            with foreign(self._where("sample_data"), "a malformed row"):
                inside(self.root, row["filename"])
                if not 0 < int(row["timestamp"]) < 2**53:
                    raise ValueError(f"a timestamp of {row['timestamp']}")
                shot = _Shot(
                    row["filename"],
                    int(row["timestamp"]) * 1000,
                    row["calibrated_sensor_token"],
                    row["ego_pose_token"],
                    row["sample_token"],
                    bool(row["is_key_frame"]),
                    (int(row.get("height") or 0), int(row.get("width") or 0)),
                )
            lidar = wanted[shot.calibrated][0] == LIDAR
            (scans if lidar else images).append(shot)
        return images, scans

    def _paired(
        self, images: list[_Shot], scans: list[_Shot], samples: dict[str, str]
    ) -> list[tuple[_Shot, _Shot | None, bool]]:
        """Each image with the scan of its moment, in order; and whether it is annotated."""
        keys = {s.sample: s for s in scans if s.key}
        by_scene: dict[str, list[_Shot]] = {}
        for each in sorted(scans, key=lambda s: s.stamp):
            by_scene.setdefault(samples[each.sample], []).append(each)
        stamps = {scene: [s.stamp for s in group] for scene, group in by_scene.items()}
        frames: list[tuple[_Shot, _Shot | None, bool]] = []
        self._places: list[Place] = []
        turn, last = 0, ""
        for image in sorted(images, key=lambda s: (samples[s.sample], s.stamp)):
            scene = samples[image.sample]
            scan: _Shot | None = keys.get(image.sample) if image.key else None
            if not image.key and scene in stamps:
                at = nearest(stamps[scene], image.stamp)
                scan = None if at is None else by_scene[scene][at]
            turn, last = (turn + 1 if scene == last else 0), scene
            self._places.append(Place(f"{scene}/{Path(image.file).stem}", scene, turn))
            frames.append((image, scan, image.key and scan is not None))
        return frames

    def _calibration(self, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
        """base_from_sensor, and K of a camera."""
        where = self._where("calibrated_sensor")
        base_from_sensor = rigid(row["translation"], row["rotation"], where)
        intrinsic = row["camera_intrinsic"]
        if not intrinsic:
            return base_from_sensor @ np.linalg.inv(_OURS_FROM_LIDAR), None
        with foreign(where, "a malformed camera_intrinsic"):
            return base_from_sensor, np.asarray(intrinsic, np.float64).reshape(3, 3)

    def _read_annotations(self, annotated: set[str]) -> None:
        """The annotations of these samples as columns, sorted by sample."""
        self._annotated = {token: n for n, token in enumerate(sorted(annotated))}
        names = {c["token"]: str(c["name"]) for c in self._rows("category")}
        of = {i["token"]: (n, i["category_token"]) for n, i in enumerate(self._rows("instance"))}
        ridden = {a["token"]: str(a["name"]) == "cycle.with_rider" for a in self._rows("attribute")}
        numbers, owners = array("d"), array("q")
        if annotated:
            for a in self._rows("sample_annotation", lambda r: r["sample_token"] in annotated):
                with foreign(self._where("sample_annotation"), "a malformed row"):
                    instance, category = of[a["instance_token"]]
                    name = names[category]
                    target = NUSCENES.get(name)
                    if target is None:
                        continue
                    alone = target == "cyclist" and not any(
                        ridden[t] for t in a["attribute_tokens"]
                    )
                    ignore = alone or name in NUSCENES_IGNORED
                    hidden = _HIDDEN.get(str(a.get("visibility_token")), 0.0)
                    values = [*a["translation"], *a["size"], *a["rotation"], hidden]
                    if len(values) != 11:
                        raise ValueError(f"{len(values)} numbers, 11 wanted")
                    numbers.extend(map(float, values))
                    sample = self._annotated[a["sample_token"]]
                    owners.extend((sample, CLASSES.index(target), instance, ignore))
        owned = np.array(owners, np.int64).reshape(-1, 4)
        order = np.argsort(owned[:, 0], kind="stable")
        self._owned = owned[order]
        self._numbers = np.array(numbers, np.float64).reshape(-1, 11)[order]

    def __len__(self) -> int:
        return len(self._frames)

    def place(self, index: int) -> Place:
        """Named by scene and image."""
        return self._places[index]

    def has_class(self, class_id: int) -> bool:
        """Whether an object is of a class."""
        return bool((self._owned[:, 1] == class_id).any())

    def stamps(self, index: int) -> tuple[int, int | None]:
        """As recorded, in microseconds."""
        image, scan, _ = self._frames[index]
        return image.stamp, None if scan is None else scan.stamp

    def camera(self, index: int) -> Camera:
        """Without distortion: the images are released rectified."""
        image = self._frames[index][0]
        K = self._calibrated[image.calibrated][1]
        where = self._where("calibrated_sensor")
        if K is None:
            raise InputError("a camera without camera_intrinsic", where, "unpack it again")
        height, width = image.size
        limits.check_image(width, height, self._where("sample_data"))
        return make_camera(K, (), "", (), (), (width, height), where)

    def raw_image(self, index: int) -> np.ndarray:
        """The JPEG."""
        return read_image(inside(self.root, self._frames[index][0].file))

    def points(self, index: int) -> np.ndarray | None:
        """Turned to x ahead, y left; intensity 0-255 becomes 0-1, the ring is left out."""
        scan = self._frames[index][1]
        if scan is None:
            return None
        path = inside(self.root, scan.file)
        with foreign(path, "cannot read the scan", "download the file again"):
            limits.check_points(path.stat().st_size // 20, str(path))
            rows = np.fromfile(path, "<f4")
            rows = rows.reshape(-1, 5)
        points = np.column_stack([rows[:, 1], -rows[:, 0], rows[:, 2], rows[:, 3] / 255])
        return points[np.isfinite(points).all(axis=1)]

    def rig(self, index: int) -> Rig:
        """With the poses that are recorded for image and scan."""
        image, scan, _ = self._frames[index]
        at_image = self._poses[image.pose]
        lidar = self._calibrated[scan.calibrated][0] if scan is not None else np.eye(4)
        at_scan = at_image if scan is None else self._poses[scan.pose]
        return Rig(self._calibrated[image.calibrated][0], lidar, at_image, at_scan)

    def cuboids(self, index: int) -> list[Cuboid] | None:
        """Boxes of the world's frame, in the LiDAR's at the scan's time; key frames have some."""
        image, _, annotated = self._frames[index]
        if not annotated:
            return None
        rig = self.rig(index)
        lidar_from_world = np.linalg.inv(rig.world_from_base_at_scan @ rig.base_from_lidar)
        number = self._annotated[image.sample]
        first, end = np.searchsorted(self._owned[:, 0], [number, number + 1])
        cuboids = []
        for owned, values in zip(self._owned[first:end], self._numbers[first:end], strict=True):
            width, length, height = values[3:6]
            world_from_box = rigid(values[:3], values[6:10], self._where("sample_annotation"))
            box = box_in(lidar_from_world @ world_from_box, (length, width, height))
            if not np.isfinite(box).all() or min(box[3:6]) <= 0:
                where = self._where("sample_annotation")
                raise InputError("a box of no size", where, "unpack the metadata again")
            _, kind, instance, ignore = owned.tolist()
            cuboids.append(Cuboid(CLASSES[kind], box, instance, float(values[10]), bool(ignore)))
        return cuboids


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The elements of a JSON file that is one list of objects, one at a time.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such list, or one of its objects has more than 16 million letters.
    """
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:
        text, at = file.read(_BLOCK).lstrip(), 1
        if not text.startswith("["):
            raise ValueError("no list")
        while True:
            # To the next object, or the end of the list.
            while at < len(text) and text[at] in " \t\r\n,":
                at += 1
            if at < len(text) and text[at] == "]":
                return
            try:
                row, at = decoder.raw_decode(text, at)
            except ValueError:
                more = file.read(_BLOCK)
                if not more or len(text) - at > _LONGEST:
                    raise ValueError("cut off or malformed") from None
                text, at = text[at:] + more, 0
                continue
            if not isinstance(row, dict):
                raise ValueError("an element that is no object")
            yield row


def _tables(path: Path, version: str) -> Path:
    """The folder of tables that a path and a version mean."""
    if (path / "sample_data.json").is_file():
        return path
    folders = versions_in(path)
    named = [f for f in folders if version in ("", f.name)]
    if len(named) != 1:
        listed = ", ".join(f.name for f in folders)
        what = f"{len(named)} folders of tables" if not version else f"no version '{version}'"
        cure = f"name a version: {listed}" if folders else "give the folder that holds v1.0-*"
        raise InputError(what, str(path), cure)
    return named[0]


def versions_in(path: Path) -> list[Path]:
    """The folders of tables in a folder."""
    return sorted(f.parent for f in path.glob("v1.0-*/sample_data.json"))
