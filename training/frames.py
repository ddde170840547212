"""Frames unpacked to one file each: what bags and rendered drives become for reading at random."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from amodal_core.datasets.bag import BagSet
from amodal_core.datasets.base import Dataset, Finding, Place
from amodal_core.errors import InputError
from amodal_core.files import atomic, write_json
from amodal_core.frame import Calibration, Frame, Sample, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.synthetic.generate import RunOptions, generate
from amodal_core.synthetic.lidar import LidarOptions
from training.config import Synthetic

Progress = Callable[[str, int, int], None]
_INDEX = "frames.json"
_COLUMNS = ("class_ids", "ids", "ages", "depths", "occlusion_rates", "occluders")


class Frames(Dataset):
    """A folder of unpacked frames.

    Args:
        path: the folder.

    Raises:
        InputError: the folder is none of these.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            index = json.loads((self.path / _INDEX).read_text())
        except (OSError, ValueError):
            raise InputError("no unpacked frames", str(path), "remove it and start again") from None
        self.name = index["name"]
        self.classes = tuple(index["classes"])
        self._places = [Place(*p) for p in index["places"]]
        self._sizes = [tuple(s) for s in index["sizes"]]

    def __len__(self) -> int:
        return len(self._places)

    def place(self, index: int) -> Place:
        """As in the source."""
        return self._places[index]

    def size(self, index: int) -> tuple[int, int]:
        """(height, width)."""
        return self._sizes[index]

    def frame(self, index: int) -> Frame:
        """Image, points and calibration."""
        return self[index].frame

    def truth(self, index: int) -> Tracks | None:
        """The truth, None where the source had none."""
        with self._open(index) as data:
            return _truth(data)

    def check(self) -> Iterator[Finding | None]:
        """Nothing: what was unpacked was checked."""
        yield from ()

    def _open(self, index: int) -> Any:
        path = _file(self.path, index)
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"a broken frame: {error}", str(path), "remove its folder") from None

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        place = self.place(index)
        with self._open(index) as data:
            image = cv2.imdecode(data["image"], cv2.IMREAD_COLOR)
            assert image is not None
            height, width = image.shape[:2]
            calibration = None
            if "K" in data:
                calibration = Calibration(data["K"], data["camera_from_lidar"], width, height)
            frame = Frame(
                int(data["stamp"]),
                image=np.ascontiguousarray(image[..., ::-1]),
                points=data.get("points"),
                calibration=calibration,
            )
            return Sample(frame, _truth(data), place.name, place.video, place.index)


def is_unpacked(path: Path) -> bool:
    """Whether a path is a folder of unpacked frames."""
    return (path / _INDEX).is_file()


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.npz"


def _truth(data: Any) -> Tracks | None:
    if "ids" not in data:
        return None
    size = (int(data["size"][0]), int(data["size"][1]))
    masks = {}
    for kind in ("amodal", "visible"):
        text, ends = data[kind].tobytes(), data[f"{kind}_ends"].tolist()
        begins = [0, *ends[:-1]] if ends else []
        masks[kind] = RleMasks(size, [text[a:b] for a, b in zip(begins, ends, strict=True)])
    values = {name: data[name] for name in _COLUMNS}
    n = len(values["ids"])
    return Tracks(
        size=size,
        amodal_boxes=masks["amodal"].boxes(),
        visible_boxes=masks["visible"].boxes(),
        scores=np.ones(n, np.float32),
        amodal=masks["amodal"],
        visible=masks["visible"],
        boxes3d=data.get("boxes3d"),
        ignore=data.get("ignore"),
        coasted=np.zeros(n, bool),
        **values,
    )


def _save(path: Path, sample: Sample) -> None:
    """Write a frame, whole or not at all."""
    frame = sample.frame
    columns: dict[str, Any] = {}
    assert frame.image is not None
    png = cv2.imencode(".png", frame.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    columns["image"], columns["stamp"] = png, np.int64(frame.stamp)
    if frame.points is not None:
        columns["points"] = frame.points
    if frame.calibration is not None:
        columns["K"] = frame.calibration.K
        columns["camera_from_lidar"] = frame.calibration.camera_from_lidar
    if sample.truth is not None:
        truth = sample.truth.numpy()
        columns["size"] = np.array(truth.size)
        for kind, masks in (("amodal", truth.amodal.rle()), ("visible", truth.visible.rle())):
            columns[kind] = np.frombuffer(b"".join(masks.counts), np.uint8)
            columns[f"{kind}_ends"] = np.cumsum([len(c) for c in masks.counts], dtype=np.int64)
        columns |= {name: np.asarray(getattr(truth, name)) for name in _COLUMNS}
        for name in ("boxes3d", "ignore"):
            if getattr(truth, name) is not None:
                columns[name] = np.asarray(getattr(truth, name))
    with atomic(path) as part, part.open("wb") as file:
        np.savez(file, **columns)


def unpack(source: Dataset, folder: Path, progress: Progress) -> Frames:
    """Write every frame of a data set into a folder, in order; goes on where it was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = []
    for k in range(len(source)):
        if not _file(folder, k).exists():
            _save(_file(folder, k), source[k])
        sizes.append(source.size(k))
        progress(f"unpacking {source.name}", k + 1, len(source))
    places = [source.place(k) for k in range(len(source))]
    index = {
        "name": source.name,
        "classes": source.classes,
        "places": [(p.name, p.video, p.index) for p in places],
        "sizes": sizes,
    }
    write_json(index, folder / _INDEX)
    return Frames(folder)


def of_bag(bag: Path, cache: Path, progress: Progress) -> Frames:
    """A bag's frames: a bag is read in order, training reads at random."""
    files = [bag] if bag.is_file() else sorted(p for p in bag.iterdir() if p.is_file())
    stamp = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    folder = cache / f"bag_{bag.stem}_{_digest(stamp)}"
    if is_unpacked(folder):
        return Frames(folder)
    return unpack(BagSet(bag), folder, progress)


def of_drives(wanted: Synthetic, cache: Path, workers: int, progress: Progress) -> list[Frames]:
    """Rendered drives, one a sequence; rendered when they are first asked for.

    Raises:
        InputError: impossible options, or nothing can be rendered on this machine.
    """
    values = asdict(wanted)
    base = cache / f"drives_{_digest(values)}"
    options = RunOptions(
        frames=wanted.frames,
        seed=wanted.seed,
        camera=wanted.camera,
        size=wanted.size,
        length=wanted.length,
        street=wanted.street,
        weather=wanted.weather,
        randomise=wanted.randomise,
        lidar=LidarOptions(columns=wanted.columns),
    )
    count = len(options.lengths())
    folders = [base / f"{k:04d}" for k in range(count)]
    if not all(is_unpacked(f) for f in folders):
        bags = base / "bags"
        if not bags.exists():
            base.mkdir(parents=True, exist_ok=True)
            generate(bags, options, workers, lambda n, m: progress("rendering drives", n, m))
        for k, folder in enumerate(folders):
            bag = bags if count == 1 else bags / f"drive_{k:04d}"
            if not is_unpacked(folder):
                unpack(BagSet(bag), folder, progress)
        shutil.rmtree(bags)
    return [Frames(f) for f in folders]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
