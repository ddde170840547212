"""MOVi-B and MOVi-D as released with EoRaS: Kubric videos whose objects are also rendered alone.

A video's folder holds metadata.json, rgba_full_%05d.png, segmentation_full_%05d.png (value = object
+ 1, what is visible), segmentation_<object>_%05d.png (the same value, the whole object), and
depth_full_%05d.tiff (metres to the camera's centre). instance_list.npy of a split lists the
"<video>-<object>" that are evaluated; the other objects are marked `ignore`.

Fan et al.: Rethinking Amodal Video Segmentation from Learning Supervised Signals with
Object-centric Representation, ICCV 2023.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from amodal_core import limits, pickles
from amodal_core.datasets.base import BEGIN, PERIOD, Dataset, Finding, Place, link, new_folder
from amodal_core.datasets.image_files import check_image, read_image, read_labels, read_pixels
from amodal_core.datasets.truth import make_truth
from amodal_core.errors import InputError, foreign
from amodal_core.files import atomic
from amodal_core.frame import Calibration, Frame, Tracks
from amodal_core.masks.mask_set import RleMasks

LIST = "instance_list.npy"
META = "metadata.json"
_LONGEST = 1_000_000  # frames of a video; the released ones have 36 at most


class Movi(Dataset):
    """The videos of a split, or one video.

    Args:
        path: a folder with instance_list.npy, or a video's folder.

    Raises:
        InputError: there is no video, or a video's metadata is malformed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = f"movi {self.path.name}"
        self.classes = ("object",)
        if (self.path / META).exists():
            self._folders = [self.path]
        else:
            self._folders = sorted(p.parent for p in self.path.glob(f"*/{META}"))
        if not self._folders:
            raise InputError(f"no */{META}", str(path), "give a split's or a video's folder")
        self._meta = [_metadata(f / META) for f in self._folders]
        self._first = np.cumsum([0, *(m["num_frames"] for m in self._meta)])
        where = next((p for p in (self.path, self.path.parent) if (p / LIST).exists()), None)
        self._evaluated: set[str] | None = None
        if where is not None:
            self._evaluated = {str(v) for v in pickles.load_npy(where / LIST).reshape(-1)}
        self._list = where / LIST if where is not None else None

    def __len__(self) -> int:
        return int(self._first[-1])

    def _at(self, index: int) -> tuple[int, int]:
        """The video and the turn of a sample."""
        video = int(np.searchsorted(self._first, index, side="right")) - 1
        return video, int(index - self._first[video])

    def _file(self, index: int, kind: str, suffix: str = ".png") -> Path:
        video, turn = self._at(index)
        return self._folders[video] / f"{kind}_{turn:05d}{suffix}"

    def place(self, index: int) -> Place:
        """Named "<video>/<number>"."""
        video, turn = self._at(index)
        name = self._folders[video].name
        return Place(f"{name}/{turn:05d}", name, turn)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) as the metadata says."""
        meta = self._meta[self._at(index)[0]]
        return meta["height"], meta["width"]

    def frame(self, index: int) -> Frame:
        """Image, depth along the optical axis where there is a file, the camera without a pose."""
        image = read_image(self._file(index, "rgba_full"), self.size(index))
        size = image.shape[0], image.shape[1]
        calibration = self._calibration(index, size)
        depth = self._depth(index, calibration)
        stamp = BEGIN + self._at(index)[1] * PERIOD
        return Frame(stamp, image=image, depth=depth, calibration=calibration)

    def _calibration(self, index: int, size: tuple[int, int]) -> Calibration | None:
        """Kubric's K is in shares of the image, for a camera that looks along -z."""
        K = self._meta[self._at(index)[0]]["K"]
        if K is None:
            return None
        height, width = size
        fx, fy = abs(K[0, 0]) * width, abs(K[1, 1]) * height
        cx, cy = abs(K[0, 2]) * width - 0.5, abs(K[1, 2]) * height - 0.5
        pixels = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        return Calibration(pixels, np.eye(4), width, height)

    def _depth(self, index: int, calibration: Calibration | None) -> np.ndarray | None:
        path = self._file(index, "depth_full", ".tiff")
        if not path.exists() or calibration is None:
            return None
        distance = read_pixels(path, cv2.IMREAD_UNCHANGED)
        if distance is None or distance.ndim != 2:
            raise InputError("not one channel of depth", str(path), "download it again")
        height, width = distance.shape
        K = calibration.K
        x = (np.arange(width) - K[0, 2]) / K[0, 0]
        y = (np.arange(height) - K[1, 2]) / K[1, 1]
        ray = np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)
        depth = (distance / ray).astype(np.float32)
        depth[~np.isfinite(depth)] = 0
        return depth

    def truth(self, index: int) -> Tracks:
        """Every object of the video that is in the picture; ids are the objects' numbers."""
        video, _ = self._at(index)
        meta, folder = self._meta[video], self._folders[video]
        labels = read_labels(self._file(index, "segmentation_full"))
        size = (labels.shape[0], labels.shape[1])
        numbers, amodal, visible = [], [], []
        for number in range(meta["objects"]):
            path = self._file(index, f"segmentation_{number}")
            if not path.exists():
                continue
            object_labels = read_labels(path)
            if object_labels.shape != labels.shape:
                raise InputError(
                    f"labels of {object_labels.shape} where the frame has {labels.shape}", str(path)
                )
            mask = object_labels == number + 1
            if mask.any():
                numbers.append(number)
                amodal.append(_crop(mask))
                visible.append(_crop(labels == number + 1))
        listed = self._evaluated
        ignore = [listed is not None and f"{folder.name}-{n}" not in listed for n in numbers]
        return make_truth(
            _from_crops(amodal, size),
            _from_crops(visible, size),
            [0] * len(numbers),
            numbers,
            ignore=ignore,
        )

    # Checking and mending ---------------------------------------------------------------------

    def check(self) -> Iterator[Finding | None]:
        """Files, sizes, values of labels, and the list of evaluated objects."""
        yield from self._check_list()
        for index in range(len(self)):
            yield from self._check_frame(index)
            yield None

    def _check_list(self) -> Iterator[Finding]:
        objects = {f.name: m["objects"] for f, m in zip(self._folders, self._meta, strict=True)}
        for entry in sorted(self._evaluated or ()):
            if not self._exists(entry, objects):
                what = "names a video or an object that is not there"
                yield Finding("unknown-instance", str(self._list), entry, what)

    @staticmethod
    def _exists(entry: str, objects: dict[str, int]) -> bool:
        video, _, number = entry.rpartition("-")
        return video in objects and number.isdigit() and int(number) < objects[video]

    def _check_frame(self, index: int) -> Iterator[Finding]:
        size, count = self.size(index), self._meta[self._at(index)[0]]["objects"]
        paths = [self._file(index, "rgba_full"), self._file(index, "segmentation_full")]
        paths += [self._file(index, f"segmentation_{n}") for n in range(count)]
        readable = True
        for path in paths:
            actual = yield from check_image(path)
            if actual is None:
                readable = False
            elif actual != size:
                readable = False
                what = f"{actual} where metadata.json says {size} (height, width)"
                yield Finding("wrong-size", str(path), "", what)
        if not readable:
            return
        try:
            labels = read_labels(paths[1])
            if int(labels.max(initial=0)) > count:
                what = f"value {labels.max()} where the metadata has {count} objects"
                yield Finding("unknown-instance", str(paths[1]), "", what)
            for number, path in enumerate(paths[2:]):
                outside = int(((labels == number + 1) & (read_labels(path) != number + 1)).sum())
                if outside:
                    what = f"{outside} visible pixels lie outside the amodal mask"
                    yield Finding("visible-outside-amodal", str(path), str(number), what)
        except InputError as error:
            yield Finding("broken-image", error.where, "", error.what)

    def fix(self, out: Path) -> Iterator[None]:
        """Links to the videos without broken frames, and the list of what can be evaluated."""
        new_folder(out)
        kept = []
        for video, folder in enumerate(self._folders):
            findings = False
            for index in range(int(self._first[video]), int(self._first[video + 1])):
                findings = findings or any(f for f in self._check_frame(index))
                yield None
            if not findings:
                kept.append(folder)
                link(folder, out / folder.name)
        if self._evaluated is not None:
            objects = {f.name: _metadata(f / META)["objects"] for f in kept}
            names = sorted(e for e in self._evaluated if self._exists(e, objects))
            with atomic(out / LIST) as part:
                np.save(part, np.array(names, dtype=np.str_))


def _metadata(path: Path) -> dict[str, Any]:
    with foreign(path, "malformed metadata", "download it again"):
        value = json.loads(path.read_bytes())
        meta = value["metadata"]
        K = value.get("camera", {}).get("K")
        K = None if K is None else np.asarray(K, np.float64).reshape(3, 3)
        if K is not None and not (np.abs(K).max() < 1e6 and K[0, 0] and K[1, 1]):  # NaN is not
            raise ValueError("a camera's K that is none")
        sizes = {name: int(meta[name]) for name in ("num_frames", "height", "width")}
        limits.check_image(sizes["width"], sizes["height"], str(path))
        if not 0 <= sizes["num_frames"] <= _LONGEST:
            raise ValueError(f"{sizes['num_frames']} frames")
        return {**sizes, "objects": len(value["instances"]), "K": K}


def _crop(mask: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    return mask[y : y + h, x : x + w], (x, y)


def _from_crops(crops: list[tuple[np.ndarray, tuple[int, int]]], size: tuple[int, int]) -> RleMasks:
    offsets = np.array([o for _, o in crops], np.int64).reshape(-1, 2)
    return RleMasks.from_crops([c for c, _ in crops], offsets, size)
