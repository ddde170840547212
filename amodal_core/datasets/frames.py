"""A folder of frames, one file each, for reading at random: rendered drives and unpacked bags.

`000000.npz` holds what a sample holds, the image's bytes beside the scan's, which are five times as
many, and masks as COCO RLE (files of before 0.2 have the image as PNG); `frames.json` names the
classes and the samples' places. Rendered frames hold more columns, which are not read here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from amodal_core import pickles
from amodal_core.datasets.base import Dataset, Finding, Place
from amodal_core.errors import InputError, foreign
from amodal_core.files import atomic, write_json
from amodal_core.frame import Calibration, Frame, Sample, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.progress import StageProgress

INDEX = "frames.json"
_COLUMNS = ("class_ids", "ids", "ages", "depths", "occlusion_rates", "occluders")


class Frames(Dataset):
    """Such a folder.

    Args:
        path: the folder.

    Raises:
        InputError: the folder is none of these.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with foreign(path, "no unpacked frames", "remove it and start again"):
            index = json.loads((self.path / INDEX).read_text())
            self.name = str(index["name"])
            self.classes = tuple(map(str, index["classes"]))
            self._places = [Place(str(n), str(v), int(i)) for n, v, i in index["places"]]
            self._sizes = [(int(h), int(w)) for h, w in index["sizes"]]
            if len(self._sizes) != len(self._places):
                raise ValueError(f"{len(self._sizes)} sizes of {len(self._places)} frames")

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
        return self._read(index).frame

    def truth(self, index: int) -> Tracks | None:
        """The truth, None where the source had none."""
        return self._read(index, image=False).truth

    def check(self) -> Iterator[Finding | None]:
        """Files that cannot be read."""
        for index in range(len(self)):
            try:
                self._read(index)
            except InputError as error:
                yield Finding("broken-frame", error.where, "", error.what)
            yield None

    def _read(self, index: int, image: bool = True) -> Sample:
        with open_frame(frame_file(self.path, index)) as columns:
            sample = (
                read_sample(columns, self.place(index))
                if image
                else Sample(Frame(int(columns["stamp"])), _truth(columns))
            )
            if sample.truth is not None and len(sample.truth):
                ids = sample.truth.class_ids
                if not 0 <= ids.min() <= ids.max() < len(self.classes):
                    raise ValueError("class ids beyond the classes of frames.json")
            return sample

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._read(index % len(self))


def is_frames(folder: Path) -> bool:
    """Whether a path is a whole folder of frames."""
    return (folder / INDEX).is_file()


def frame_file(folder: Path, index: int) -> Path:
    """The file of a frame."""
    return folder / f"{index:06d}.npz"


@contextmanager
def open_frame(path: Path) -> Iterator[Any]:
    """The columns of a frame's file, for a `with` block that takes values out of them.

    Raises:
        InputError: the file is missing or broken.
    """
    with foreign(path, "a broken frame", "remove its folder"), pickles.Arrays(path) as columns:
        yield columns


def read_sample(columns: Any, place: Place) -> Sample:
    """A sample from a file's columns."""
    image = columns["image"]
    if image.ndim == 1:
        image = cv2.imdecode(image, cv2.IMREAD_COLOR_RGB)
    if image is None or image.ndim != 3 or image.dtype != np.uint8:
        raise ValueError("no image")
    height, width = image.shape[:2]
    calibration = None
    if "K" in columns:
        calibration = Calibration(columns["K"], columns["camera_from_lidar"], width, height)
    frame = Frame(
        int(columns["stamp"]), image=image, points=columns.get("points"), calibration=calibration
    )
    return Sample(frame, _truth(columns), place.name, place.video, place.index)


def _truth(columns: Any) -> Tracks | None:
    if "ids" not in columns:
        return None
    size = (int(columns["size"][0]), int(columns["size"][1]))
    masks = {}
    for kind in ("amodal", "visible"):
        text, ends = columns[kind].tobytes(), columns[f"{kind}_ends"].tolist()
        begins = [0, *ends[:-1]] if ends else []
        masks[kind] = RleMasks(size, [text[a:b] for a, b in zip(begins, ends, strict=True)])
    values = {name: columns[name] for name in _COLUMNS}
    n = len(values["ids"])
    return Tracks(
        size=size,
        amodal_boxes=masks["amodal"].boxes(),
        visible_boxes=masks["visible"].boxes(),
        scores=np.ones(n, np.float32),
        amodal=masks["amodal"],
        visible=masks["visible"],
        boxes3d=columns.get("boxes3d"),
        ignore=columns.get("ignore"),
        coasted=np.zeros(n, bool),
        **values,
    )


def save_sample(path: Path, sample: Sample, **more: np.ndarray) -> None:
    """Write a sample to one file, and `more` columns beside its own."""
    frame = sample.frame
    assert frame.image is not None
    columns: dict[str, Any] = {"image": frame.image, "stamp": np.int64(frame.stamp)}
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
        np.savez(file, **(columns | more))


def write_index(
    folder: Path,
    name: str,
    classes: Sequence[str],
    places: Iterable[Place],
    sizes: Sequence[tuple[int, int]],
) -> None:
    """Make a folder whose frames are all there known as whole."""
    listed = [(p.name, p.video, p.index) for p in places]
    index = {"name": name, "classes": classes, "places": listed, "sizes": sizes}
    write_json(index, folder / INDEX)


def unpack(source: Dataset, folder: Path, progress: StageProgress = lambda *_: None) -> Frames:
    """Write every frame of a data set into a folder, in order; goes on where it was killed.

    Args:
        source: what is unpacked.
        folder: is made.
        progress: is called with what is done, frames done and frames in all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = []
    for k in range(len(source)):
        if not frame_file(folder, k).exists():
            save_sample(frame_file(folder, k), source[k])
        sizes.append(source.size(k))
        progress(f"unpacking {source.name}", k + 1, len(source))
    write_index(folder, source.name, source.classes, map(source.place, range(len(source))), sizes)
    return Frames(folder)
