"""AmodalSynthDrive: CARLA drives with amodal instances, LiDAR scans and 3D boxes.

Two layouts are in use:

- current: `{full,empty}/<modality>/<camera>/<sequence>/<camera>_full_%04d_<suffix>`
- older: `<split>/<modality>/[<camera>/]<sequence>/<camera>_full_%04d_<suffix>`

An instance's visible mask is where the label PNG holds its id; its amodal mask is in the JSON, and
is empty there when nothing hides it. CARLA's frames are left-handed (y to the right): scans and
boxes are mirrored here. A drive of one camera is one video, named "<sequence>/<camera>".

Sekkat et al.: AmodalSynthDrive, RA-L 2024 (non-commercial licence).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from amodal_core.datasets.amodal_synth_drive_lidar import (
    box_of,
    in_sensor,
    inside_count,
    mirrored,
    read_boxes,
    read_lidar,
)
from amodal_core.datasets.base import BEGIN, PERIOD, Dataset, Finding, Place, link, new_folder
from amodal_core.datasets.categories import ASD, ASD_THINGS
from amodal_core.datasets.image_files import (
    check_image,
    image_size,
    read_image,
    read_labels,
    write_bytes,
)
from amodal_core.datasets.json_write import dumps
from amodal_core.datasets.truth import make_truth
from amodal_core.errors import InputError, foreign
from amodal_core.frame import Calibration, Frame, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.validate import SegmentationError, to_rle

CAMERAS = ("front", "back", "left", "right")
CALIBRATION = "calibration.json"
MODALITY = "amodal_instance_seg"
# Labels of the release that are wrong: sequence's beginning, camera, frame, wrong and right class.
_KNOWN_WRONG = (
    ("20230702032750_SoftRainSunset", "front", 22, 21, 27),
    ("20230706030929_WetCloudyNoon", "front", 71, 11, 26),
)
_FILE = re.compile(r"(?P<camera>[a-z]+)_(?:full|empty)_(?P<number>\d{4})_aminseg\.json$")
# A scan of another moment than the boxes: too few points of things lie in a box of things.
_IN_BOXES, _ENOUGH_POINTS = 0.6, 50


class AmodalSynthDrive(Dataset):
    """All annotated images below a folder, ordered by sequence, camera and frame.

    Args:
        path: the root, one of its `full` or split folders, or any folder that holds
            `amodal_instance_seg`.
        cameras: the cameras to read.

    Raises:
        InputError: there is no annotation below the path.
    """

    def __init__(self, path: str | Path, cameras: Sequence[str] = CAMERAS) -> None:
        self.path = Path(path)
        self.name = f"amodal_synth_drive {self.path.name}"
        self.classes = tuple(ASD[k] for k in ASD_THINGS)
        self._files: list[tuple[Path, str, str, int]] = []  # JSON, sequence, camera, number
        for base in _bases(self.path):
            for file in sorted((base / MODALITY).rglob("*_aminseg.json")):
                match = _FILE.fullmatch(file.name)
                if match and match["camera"] in cameras:
                    entry = (file, file.parent.name, match["camera"], int(match["number"]))
                    self._files.append(entry)
        if not self._files:
            raise InputError(
                f"no {MODALITY}/**/*_aminseg.json",
                str(path),
                "give the folder that holds `full` or a split",
            )
        self._files.sort(key=lambda f: (f[1], f[2], f[3]))
        self._calibrations: dict[Path, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._files)

    def place(self, index: int) -> Place:
        """Named "<sequence>/<camera>/<number>"."""
        _, sequence, camera, number = self._files[index]
        return Place(f"{sequence}/{camera}/{number:04d}", f"{sequence}/{camera}", number)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of the label image."""
        return image_size(self._labels_path(index))

    def _labels_path(self, index: int) -> Path:
        return self._files[index][0].with_suffix(".png")

    def image_path(self, index: int) -> Path:
        """The camera image of an annotation."""
        file = self._files[index][0]
        stem = file.name.removesuffix("_aminseg.json")
        names = list(file.parts)
        names[len(names) - 1 - names[::-1].index(MODALITY)] = "images"
        return Path(*names[:-1]) / f"{stem}_rgb.jpg"

    def _base(self, index: int) -> Path:
        file = self._files[index][0]
        return next(p.parent for p in file.parents if p.name == MODALITY)

    def lidar_path(self, index: int) -> Path:
        """The scan of a frame; one for all cameras."""
        _, sequence, _, number = self._files[index]
        return self._base(index) / "lidar" / sequence / f"full_{number:04d}_Lidar.pkl"

    def boxes_path(self, index: int) -> Path:
        """The 3D boxes of a frame; one file for all cameras, misspelt as released."""
        _, sequence, _, number = self._files[index]
        return self._base(index) / "bboxes" / sequence / f"bboxess_{number:04d}.pkl"

    def frame(self, index: int) -> Frame:
        """Image, and the scan where it was downloaded."""
        image = read_image(self.image_path(index))
        lidar = self.lidar_path(index)
        points = read_lidar(lidar)["points"] if lidar.exists() else None
        stamp = BEGIN + self._files[index][3] * PERIOD
        return Frame(
            stamp,
            image=image,
            points=points,
            calibration=self._calibration(index),
            points_stamp=None if points is None else stamp,
        )

    def _calibration(self, index: int) -> Calibration | None:
        """From calibration.json, which `write` adds; the release has none."""
        base = self._base(index)
        if base not in self._calibrations:
            path = base / CALIBRATION
            self._calibrations[base] = _read_json(path) if path.exists() else {}
        entry = self._calibrations[base].get(self._files[index][2])
        if entry is None:
            return None
        with foreign(base / CALIBRATION, "malformed calibration"):
            return Calibration(
                np.array(entry["K"]),
                np.array(entry["camera_from_lidar"]),
                int(entry["width"]),
                int(entry["height"]),
            )

    def truth(self, index: int) -> Tracks:
        """Instances of an image, the known wrong labels mended, unreadable ones left out."""
        labels = read_labels(self._labels_path(index))
        size = (labels.shape[0], labels.shape[1])
        rows = []
        track_ids: set[int] = set()
        for key, entry in self._entries(index).items():
            parsed, _ = self._parse(index, key, entry, size)
            if parsed is not None and parsed["track_id"] not in track_ids:
                track_ids.add(parsed["track_id"])
                rows.append((int(key), parsed))
        visible = _regions(labels, [key for key, _ in rows])
        amodal = [parsed["amodal"] or visible.counts[k] for k, (_, parsed) in enumerate(rows)]
        amodal_masks = RleMasks(size, amodal)
        keep = np.flatnonzero(amodal_masks.areas() > 0)
        boxes = self._boxes(index, [rows[k][1]["track_id"] for k in keep.tolist()])
        return make_truth(
            amodal_masks[keep],
            visible[keep],
            [ASD_THINGS.index(rows[k][1]["category"]) for k in keep.tolist()],
            [rows[k][1]["track_id"] for k in keep.tolist()],
            boxes3d=boxes,
            ignore=[bool(rows[k][1]["iscrowd"]) for k in keep.tolist()],
        )

    def _entries(self, index: int) -> dict[str, Any]:
        return _read_json(self._files[index][0])

    def _parse(
        self, index: int, key: str, entry: Any, size: tuple[int, int]
    ) -> tuple[dict[str, Any] | None, list[tuple[str, str]]]:
        """An entry's category, track id, amodal RLE (b"" when nothing hides it), and findings."""
        _, sequence, camera, number = self._files[index]
        problems: list[tuple[str, str]] = []
        try:
            category, track = int(entry["category_id"]), int(entry["track_id"])
            occluded, crowd = bool(entry.get("occluded")), int(entry.get("iscrowd", 0))
            if not 0 <= track < 2**62 or not 0 <= int(key) < 2**16:
                raise ValueError("an id that is no id")
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            return None, [("missing-field", "no category_id or track_id, or not one")]
        for name, at, frame, wrong, right in _KNOWN_WRONG:
            if sequence.startswith(name) and (camera, number, category) == (at, frame, wrong):
                what = f"known wrong label: {ASD[wrong]} is a {ASD[right]}"
                problems.append(("wrong-label", what))
                category = right
        if category not in ASD_THINGS:
            problems.append(("unknown-category", f"category {category} is no class of things"))
            return None, problems
        amodal = b""
        if entry.get("amodal_mask"):
            try:
                amodal = to_rle(entry["amodal_mask"], size)
            except SegmentationError as error:
                problems.append((error.rule, f"amodal mask: {error}"))
                return None, problems
            if not RleMasks(size, [amodal]).areas()[0]:
                amodal = b""
        if occluded and not amodal:
            problems.append(("empty-mask", "occluded, but the amodal mask is empty"))
        return {
            "category": category,
            "track_id": track,
            "iscrowd": crowd,
            "amodal": amodal,
        }, problems

    def _boxes(self, index: int, track_ids: list[int]) -> np.ndarray | None:
        path = self.boxes_path(index)
        if not path.exists():
            return None
        boxes = self.boxes3d(index)
        nothing = np.full(7, np.nan, np.float32)
        return np.stack([boxes.get(t, nothing) for t in track_ids]) if track_ids else None

    def boxes3d(self, index: int) -> dict[int, np.ndarray]:
        """(7,) float32 boxes of a frame in the LiDAR frame by track id.

        The release does not say whether corners are in the world or in the sensor's frame: where a
        scan and its pose are there, the frame is taken in which more points of things lie in boxes.
        """
        corners = read_boxes(self.boxes_path(index))
        lidar = self.lidar_path(index)
        if lidar.exists() and corners:
            scan = read_lidar(lidar)
            in_world = in_sensor(corners, scan["transform"])
            if in_world is not None and inside_count(scan, in_world) > inside_count(scan, corners):
                corners = in_world
        return {t: box_of(mirrored(c)) for t, c in corners.items()}

    # Checking and mending ---------------------------------------------------------------------

    def check(self) -> Iterator[Finding | None]:
        """Files, sizes, ids, categories, masks, and whether scans belong to their frames."""
        numbers: dict[str, int] = {}
        for index in range(len(self)):
            video, number = self.place(index).video, self._files[index][3]
            if video in numbers and number != numbers[video] + 1:
                what = f"frame {number} follows frame {numbers[video]}"
                yield Finding("missing-frame", str(self._files[index][0]), "", what)
            numbers[video] = number
            yield from self._check_frame(index)
            yield None

    def _check_frame(self, index: int) -> Iterator[Finding]:
        file, image = self._files[index][0], self.image_path(index)
        sizes = []
        for path in (self._labels_path(index), image):
            size = yield from check_image(path)
            sizes += [size] if size is not None else []
        if len(set(sizes)) == 2:
            what = f"{sizes[1]} where its labels have {sizes[0]} (height, width)"
            yield Finding("wrong-size", str(image), "", what)
        try:
            labels = read_labels(self._labels_path(index))
            entries = self._entries(index)
        except InputError as error:
            if "image" not in error.what:
                yield Finding("malformed-json", str(file), "", error.what)
            return
        for rule, key, what in self._check_entries(index, labels, entries)[0]:
            yield Finding(rule, str(file), key, what)
        yield from self._check_lidar(index)

    def _check_entries(
        self, index: int, labels: np.ndarray, entries: dict[str, Any]
    ) -> tuple[list[tuple[str, str, str]], dict[str, Any]]:
        """Findings (rule, id, what) of an image's annotations, and the annotations mended."""
        size = (labels.shape[0], labels.shape[1])
        findings: list[tuple[str, str, str]] = []
        mended: dict[str, Any] = {}
        tracks: set[int] = set()
        keys = [key for key in entries if key.isdigit()]
        regions = dict(zip(keys, _regions(labels, [int(k) for k in keys]).counts, strict=True))
        for key, entry in entries.items():
            parsed, problems = self._parse(index, key, entry, size)
            findings += [(rule, key, what) for rule, what in problems]
            if parsed is None:
                continue
            if parsed["track_id"] in tracks:
                what = f"track id {parsed['track_id']} occurs twice in the image"
                findings.append(("duplicate-id", key, what))
                continue
            tracks.add(parsed["track_id"])
            visible = RleMasks(size, [regions[key]])
            amodal = RleMasks(size, [parsed["amodal"] or visible.counts[0]])
            if not amodal.areas()[0]:
                findings.append(("empty-mask", key, "neither a visible nor an amodal pixel"))
                continue
            outside = int((visible - amodal).areas()[0])
            union = amodal | visible
            if outside:
                what = f"{outside} visible pixels lie outside the amodal mask"
                findings.append(("visible-outside-amodal", key, what))
            mended[key] = {**entry, "category_id": parsed["category"]}
            if problems or outside:
                mended[key] |= occlusion_entry(union, visible)
        values = np.unique(labels)
        things = values[(values >= 1000 * ASD_THINGS[0]) & (values < 1000 * (ASD_THINGS[-1] + 1))]
        for value in set(things.tolist()) - {int(k) for k in entries if k.isdigit()}:
            findings.append(("unknown-instance", str(value), "in the PNG but not in the JSON"))
        return findings, mended

    def _check_lidar(self, index: int) -> Iterator[Finding]:
        lidar, boxes = self.lidar_path(index), self.boxes_path(index)
        if self._files[index][2] != self._first_camera(index):
            return  # one scan and one box file serve all cameras
        for path, kind in ((lidar, "scan"), (boxes, "boxes")):
            if path.parent.is_dir() and not path.exists():
                yield Finding(f"missing-{kind}", str(path), "", f"the {kind} file is missing")
        try:
            scan = read_lidar(lidar) if lidar.exists() else None
            corners = read_boxes(boxes) if boxes.exists() else None
        except InputError as error:
            yield Finding("broken-scan", error.where, "", error.what)
            return
        if scan is None or not corners:
            return
        things = int(np.isin(scan["labels"], ASD_THINGS).sum())
        in_world = in_sensor(corners, scan["transform"])
        inside = max(inside_count(scan, c) for c in (corners, in_world) if c is not None)
        if things >= _ENOUGH_POINTS and inside < _IN_BOXES * things:
            what = (
                f"only {inside} of {things} points of things lie in a box: the scan is not of "
                "the boxes' and images' moment (known of the first release)"
            )
            yield Finding("lidar-unsynchronised", str(lidar), "", what)

    def _first_camera(self, index: int) -> str:
        _, sequence, _, number = self._files[index]
        return self._cameras().get((sequence, number), "")

    @lru_cache(maxsize=1)  # noqa: B019 - lives as long as the data set
    def _cameras(self) -> dict[tuple[str, int], str]:
        cameras: dict[tuple[str, int], str] = {}
        for _, sequence, camera, number in self._files:
            cameras.setdefault((sequence, number), camera)
        return cameras

    def fix(self, out: Path) -> Iterator[None]:
        """Mended JSON files; images, labels, scans and boxes are linked, broken frames left out."""
        new_folder(out)
        for index in range(len(self)):
            with suppress(InputError):
                self._fix_frame(index, out)
            yield None

    def _fix_frame(self, index: int, out: Path) -> None:
        file, base = self._files[index][0], self._base(index)
        target = out / base.name
        labels, image = self._labels_path(index), self.image_path(index)
        if image_size(image) != image_size(labels):
            raise InputError("image and labels differ in size", str(image))
        mended = self._check_entries(index, read_labels(labels), self._entries(index))[1]
        write_bytes(target / file.relative_to(base), dumps(mended).encode())
        for path in (labels, image, self.lidar_path(index), self.boxes_path(index)):
            if path.exists():
                link(path, target / path.relative_to(base))
        if (base / CALIBRATION).exists():
            link(base / CALIBRATION, target / CALIBRATION)


def occlusion_entry(amodal: RleMasks, visible: RleMasks) -> dict[str, Any]:
    """The fields of an annotation that say what is hidden of one instance."""
    hidden = amodal - visible
    size = list(amodal.size)
    occluded = bool(hidden.areas()[0])
    if not occluded:
        return {"occluded": False, "occlusion_mask": [], "amodal_mask": []}
    return {
        "occluded": True,
        "occlusion_mask": {"size": size, "counts": hidden.counts[0].decode("ascii")},
        "amodal_mask": {"size": size, "counts": amodal.counts[0].decode("ascii")},
    }


def _bases(path: Path) -> list[Path]:
    """The folders at or below a path that hold annotations; `empty` only where it is named."""
    places = [path, *(p for p in sorted(path.iterdir()) if p.is_dir())] if path.is_dir() else []
    bases = [p for p in places if (p / MODALITY).is_dir()]
    return [p for p in bases if p.name != "empty" or p == path or len(bases) == 1]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read it: {error.strerror}", str(path)) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"malformed JSON: {error}", str(path), "download it again") from None
    if not isinstance(value, dict):
        raise InputError("not a JSON object", str(path), "download it again")
    return value


def _regions(labels: np.ndarray, values: list[int]) -> RleMasks:
    """The mask of each value of a label image."""
    size = (labels.shape[0], labels.shape[1])
    places = ndimage.find_objects(labels.astype(np.int32))
    crops, offsets = [], []
    for value in values:
        place = places[value - 1] if 0 < value <= len(places) else None
        rows, columns = place if place is not None else (slice(0, 0), slice(0, 0))
        crops.append(labels[rows, columns] == value)
        offsets.append((columns.start, rows.start))
    return RleMasks.from_crops(crops, np.array(offsets, np.int64).reshape(-1, 2), size)
