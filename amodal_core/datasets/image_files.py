"""Find image files and look at their headers without decoding them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from amodal_core.datasets.base import Finding
from amodal_core.errors import InputError
from amodal_core.files import atomic, inside

# The last bytes of a whole file, and how far before the end they may stand.
_ENDS = {"PNG": (b"IEND\xaeB`\x82", 64), "JPEG": (b"\xff\xd9", 4096)}


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from an image's header; its end is looked at, its pixels are not decoded.

    Raises:
        InputError: the file is missing, no image, or cut off.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            kind = image.format or ""
        if kind in _ENDS:
            mark, within = _ENDS[kind]
            with path.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - within))
                if mark not in file.read():
                    raise InputError("the image is cut off", str(path), "download it again")
    except FileNotFoundError:
        raise InputError("the image is missing", str(path), "download it again") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"no image: {error}", str(path), "download it again") from None
    return height, width


def check_image(path: Path) -> Generator[Finding, None, tuple[int, int] | None]:
    """Yields a finding where an image is missing or broken; returns its (height, width) if not."""
    try:
        return image_size(path)
    except InputError as error:
        rule = "broken-image" if path.exists() else "missing-image"
        yield Finding(rule, str(path), "", error.what)
        return None


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    Raises:
        InputError: the file is missing or no image.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError("cannot read the image", str(path), "download the file again")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def read_labels(path: Path) -> np.ndarray:
    """(H, W) integers of an image whose values are labels, 8 or 16 bit or with a palette.

    Raises:
        InputError: the file is missing, no image, or has several channels.
    """
    try:
        with Image.open(path) as image:
            # OpenCV turns a palette into colours; Pillow gives its indices.
            palette = np.asarray(image) if image.mode in ("P", "L", "1") else None
    except FileNotFoundError:
        raise InputError("the image is missing", str(path), "download it again") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"no image: {error}", str(path), "download it again") from None
    labels = palette if palette is not None else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.ndim != 2:
        raise InputError("not one channel of labels", str(path), "download it again")
    return labels


def write_image(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB, or (H, W) labels, whole or not at all.

    Raises:
        InputError: the place cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else []
    done, data = cv2.imencode(path.suffix, pixels, options)
    if not done:
        raise InputError("cannot encode the image", str(path))
    write_bytes(path, data.tobytes())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        InputError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            part.write_bytes(data)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", str(path)) from None


class ImageFolder:
    """The folder among several candidates that holds a data set's images.

    Args:
        candidates: folders, the likeliest first.
        names: some file names relative to the right folder.
    """

    def __init__(self, candidates: Iterable[Path], names: Sequence[str]) -> None:
        self._candidates = list(dict.fromkeys(candidates))
        self._names = list(names)

    @cached_property
    def path(self) -> Path:
        """The candidate that holds most of the names, the first of them where none holds any."""

        def count(folder: Path) -> int:
            return sum((folder / name).is_file() for name in self._names) if folder.is_dir() else 0

        return max(self._candidates, key=count)

    def __truediv__(self, name: str) -> Path:
        return inside(self.path, name)
