"""KINS_Video_Car with EoRaSMissing: cars of KITTI raw drives, KINS' masks where a frame is in KINS.

`car_data/<split>_data.pkl` maps drive, object and frame to the visible mask `VM` (RLE), its box
`VM_bbox` (first and last row, first and last column) and `loss_mask`; EoRaSMissing's
`<split>_data_full_mask.pkl` has the whole mask `FM`, empty in frames that KINS does not hold. Such
objects are marked `ignore`, their amodal mask being unknown. Images lie in
`Kitti/raw_video/<date>/<drive>/*.png`, calibrations in `Kitti/calib/<day>.txt`.

Yao et al.: Self-supervised Amodal Video Object Segmentation, NeurIPS 2022; EoRaS, ICCV 2023.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core import pickles
from amodal_core.datasets.base import BEGIN, PERIOD, Dataset, Finding, Place, link, new_folder
from amodal_core.datasets.image_files import check_image, image_size, read_image, write_bytes
from amodal_core.datasets.truth import make_truth
from amodal_core.errors import InputError, foreign
from amodal_core.files import inside
from amodal_core.frame import Calibration, Frame, Tracks
from amodal_core.geometry.calibration import read_kitti
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.validate import SegmentationError, to_rle

SUFFIX = "_data.pkl"
FULL = "_data_full_mask.pkl"


class KinsVideo(Dataset):
    """One split: every annotated frame of every drive, ordered by drive and frame.

    Args:
        path: `<split>_data.pkl`, or the root or `car_data` folder if it holds one split only.
        kitti: the folder that holds `raw_video` and `calib`; `Kitti` beside `car_data` when None.

    Raises:
        InputError: there is no such pickle, or it holds something else.
    """

    def __init__(self, path: str | Path, kitti: str | Path | None = None) -> None:
        self.path = find(Path(path))
        split = self.path.name.removesuffix(SUFFIX)
        self.name = f"kins_video_car {split}"
        self.classes = ("car",)
        root = self.path.parent.parent
        self.kitti = Path(kitti) if kitti is not None else root / "Kitti"
        self._visible = _annotations(self.path)
        full = self.path.with_name(f"{split}{FULL}")
        self._full = _annotations(full) if full.exists() else {}
        self._places: list[tuple[str, int]] = []
        for drive in sorted(self._visible):
            frames = {t for frames in self._visible[drive].values() for t in frames}
            self._places += [(drive, t) for t in sorted(frames)]

    def __len__(self) -> int:
        return len(self._places)

    def place(self, index: int) -> Place:
        """Named "<drive>/<frame>"."""
        drive, turn = self._places[index]
        return Place(f"{drive}/{turn:010d}", drive, turn)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of the masks."""
        drive, turn = self._places[index]
        for frames in self._visible[drive].values():
            if turn in frames:
                with foreign(f"{self.path}: {drive}/{turn}", "a mask without size", "mend it"):
                    height, width = frames[turn]["VM"]["size"]
                    return int(height), int(width)
        raise InputError("a frame without an object", f"{drive}/{turn}")

    @lru_cache(maxsize=8)  # noqa: B019 - lives as long as the data set
    def _images(self, drive: str) -> list[Path]:
        """A drive's images in order: frame t is the t-th of those that are there."""
        folder = inside(self.kitti / "raw_video", f"{drive[:10]}/{drive}")
        images = (p for p in folder.glob("*.png") if p.stem.isdigit())
        return sorted(images, key=lambda p: int(p.stem))

    def image_path(self, index: int) -> Path:
        """The image of a sample.

        Raises:
            InputError: the drive has fewer images.
        """
        drive, turn = self._places[index]
        images = self._images(drive)
        if turn >= len(images):
            folder = self.kitti / "raw_video" / drive[:10] / drive
            raise InputError(f"image {turn} of {len(images)} is missing", str(folder))
        return images[turn]

    def frame(self, index: int) -> Frame:
        """Image and camera; the set has no scans."""
        image = read_image(self.image_path(index), self.size(index))
        height, width = image.shape[:2]
        drive, turn = self._places[index]
        calib = self.kitti / "calib" / f"{int(drive[8:10])}.txt" if drive[8:10].isdigit() else None
        calibration: Calibration | None = None
        if calib is not None and calib.exists():
            calibration = read_kitti(calib).calibration(width, height)
        return Frame(BEGIN + turn * PERIOD, image=image, calibration=calibration)

    def truth(self, index: int) -> Tracks:
        """Masks of a frame; objects whose masks cannot be read are left out."""
        size = self.size(index)
        ids, amodal, visible, unknown = [], [], [], []
        for number, visible_entry, amodal_entry in self._objects(index):
            try:
                mask = to_rle(visible_entry.get("VM"), size)
                full_counts = to_rle(amodal_entry["FM"], size) if amodal_entry else b""
            except (SegmentationError, KeyError, TypeError):
                continue
            has_full = bool(full_counts) and bool(RleMasks(size, [full_counts]).areas()[0])
            ids.append(number)
            visible.append(mask)
            amodal.append(full_counts if has_full else mask)
            unknown.append(not has_full)
        masks = RleMasks(size, amodal)
        return make_truth(masks, RleMasks(size, visible), [0] * len(ids), ids, ignore=unknown)

    def _objects(self, index: int) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
        """Each object of a frame: its number, its entry, its entry among the full masks."""
        drive, turn = self._places[index]
        for number, frames in sorted(self._visible[drive].items()):
            if turn in frames:
                amodal_entry = self._full.get(drive, {}).get(number, {}).get(turn, {})
                yield number, frames[turn], amodal_entry

    # Checking and mending ---------------------------------------------------------------------

    def check(self) -> Iterator[Finding | None]:
        """Images, sizes, masks, boxes, and objects with gaps in time."""
        for drive, objects in self._visible.items():
            for number, frames in objects.items():
                if frames and max(frames) - min(frames) + 1 != len(frames):
                    what = f"object {number} is missing in frames between its first and last"
                    yield Finding("missing-frame", f"{self.path.name}: {drive}", str(number), what)
        for index in range(len(self)):
            try:
                path = self.image_path(index)
                actual = yield from check_image(path)
                if actual is not None and actual != self.size(index):
                    what = f"{actual} where the masks are {self.size(index)} (height, width)"
                    yield Finding("wrong-size", str(path), "", what)
            except InputError as error:
                yield Finding("missing-image", error.where, "", error.what)
            for number, visible_entry, amodal_entry in self._objects(index):
                for rule, what in self._inspect(self.size(index), visible_entry, amodal_entry):
                    where = f"{self.path.name}: {self.place(index).name}"
                    yield Finding(rule, where, str(number), what)
            yield None

    @staticmethod
    def _inspect(
        size: tuple[int, int], visible_entry: dict[str, Any], amodal_entry: dict[str, Any]
    ) -> Iterator[tuple[str, str]]:
        try:
            visible = RleMasks(size, [to_rle(visible_entry.get("VM"), size)])
            amodal = RleMasks(size, [to_rle(amodal_entry["FM"], size)]) if amodal_entry else None
        except (SegmentationError, KeyError, TypeError) as error:
            yield getattr(error, "rule", "missing-field"), f"mask: {error}"
            return
        if not visible.areas()[0]:
            yield "empty-mask", "the visible mask has no pixel"
        box = visible_entry.get("VM_bbox")
        x1, y1, x2, y2 = visible.boxes()[0].tolist()
        near = False
        with suppress(TypeError, ValueError):
            near = bool(np.abs(np.asarray(box, float) - (y1, y2, x1, x2)).max() <= 2)
        if visible.areas()[0] and not near:
            yield "box-mismatch", f"VM_bbox {box} does not fit its mask"
        if amodal is not None and amodal.areas()[0]:
            outside = int((visible - amodal).areas()[0])
            if outside > 0.05 * int(visible.areas()[0]):  # KINS' polygons, drawn apart
                what = f"{outside} visible pixels lie outside the amodal mask"
                yield "visible-outside-amodal", what

    def fix(self, out: Path) -> Iterator[None]:
        """Both pickles without what cannot be read, and a link to KITTI's folder."""
        new_folder(out)
        link(self.kitti, out / "Kitti")
        visible_entries: dict[str, dict[int, dict[int, Any]]] = {}
        amodal_entries: dict[str, dict[int, dict[int, Any]]] = {}
        for index in range(len(self)):
            drive, turn = self._places[index]
            size = self.size(index)
            try:
                readable = image_size(self.image_path(index)) == size
            except InputError:
                readable = False
            for number, entry, other in self._objects(index) if readable else ():
                rules = {rule for rule, _ in self._inspect(size, entry, other)}
                if rules - {"box-mismatch", "visible-outside-amodal"}:
                    continue
                visible = RleMasks(size, [to_rle(entry["VM"], size)])
                if "visible-outside-amodal" in rules:
                    visible = visible & RleMasks(size, [to_rle(other["FM"], size)])
                    if not visible.areas()[0]:
                        continue
                    entry = {**entry, "VM": {"size": list(size), "counts": visible.counts[0]}}
                x1, y1, x2, y2 = visible.boxes()[0].astype(int).tolist()
                entry = {**entry, "VM_bbox": [y1, y2, x1, x2]} if rules else entry
                visible_entries.setdefault(drive, {}).setdefault(number, {})[turn] = entry
                if other:
                    amodal_entries.setdefault(drive, {}).setdefault(number, {})[turn] = other
            yield None
        split = self.path.name.removesuffix(SUFFIX)
        for name, value in ((SUFFIX, visible_entries), (FULL, amodal_entries)):
            if value:
                target = out / "car_data" / f"{split}{name}"
                write_bytes(target, pickle.dumps(value, protocol=2))


def find(path: Path) -> Path:
    """The one `<split>_data.pkl` at or below a path.

    Raises:
        InputError: there is none, or several.
    """
    if path.is_file():
        return path
    files = sorted(p for base in (path, path / "car_data") for p in base.glob(f"*{SUFFIX}"))
    if len(files) == 1:
        return files[0]
    cure = f"name one of {', '.join(str(p) for p in files)}" if files else ""
    raise InputError(f"{len(files)} files *{SUFFIX}", str(path), cure)


def _annotations(path: Path) -> dict[str, dict[int, dict[int, Any]]]:
    value = pickles.load(path)
    with foreign(path, "not drives, objects and frames", "give <split>_data.pkl"):
        return {
            str(drive): {
                int(number): {int(t): dict(entry) for t, entry in frames.items()}
                for number, frames in objects.items()
            }
            for drive, objects in value.items()
        }
