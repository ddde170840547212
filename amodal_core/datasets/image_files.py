"""Find image files and look at their headers without decoding them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from amodal_core import limits
from amodal_core.datasets.base import Finding
from amodal_core.errors import InputError
from amodal_core.files import atomic, inside
from amodal_core.frame import Sample

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values of images on their side
# The last bytes of a whole file, and how far before the end they may stand.
_ENDS = {"PNG": (b"IEND\xaeB`\x82", 64), "JPEG": (b"\xff\xd9", 4096)}


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of `read_image`, from the header; the end is looked at, no pixel is decoded.

    Raises:
        InputError: the file is missing, no image, or cut off.
    """
    try:
        width, height, kind = _header(path)
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


class _Short(BufferedReader):
    """A file of which no more is asked than it has: Pillow asks for what its chunks claim."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _header(path: Path) -> tuple[int, int, str]:
    """Width, height and format of an image that would not unpack to more than fits.

    Raises:
        InputError: it would.
        OSError: it is missing, or Pillow knows no such image.
    """
    with _Short(path) as file:
        return _header_of(file, str(path))


def _header_of(file: BufferedReader | BytesIO, where: str) -> tuple[int, int, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as image:
                width, height = image.size
                kind = image.format or ""
                # OpenCV turns what it reads; Pillow has done so already where it lists no EXIF.
                if "exif" in image.info and image.getexif().get(_ORIENTATION, 1) in _LYING:
                    width, height = height, width
    except Image.DecompressionBombError:
        width, height, kind = limits.PIXELS, 2, ""
    limits.check_image(width, height, where)
    return width, height, kind


def read_pixels(path: Path, flags: int) -> np.ndarray | None:
    """What OpenCV reads of an image of a size that fits; None where it reads nothing.

    Raises:
        InputError: it has more pixels than `limits.PIXELS`.
    """
    with suppress(OSError, ValueError, SyntaxError):  # OpenCV knows more formats
        _header(path)
    # Not `imread`, which a name that is no UTF-8 crashes.
    with suppress(OSError):
        return _decode(path.read_bytes(), flags, str(path))
    return None


def _decode(data: bytes, flags: int, where: str) -> np.ndarray | None:
    limits.check_png(data, where)
    with suppress(cv2.error):
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None


def decode_image(data: bytes, where: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file's bytes.

    Raises:
        InputError: they are no image, or one of more pixels than `limits.PIXELS`.
    """
    with suppress(OSError, ValueError, SyntaxError):
        _header_of(BytesIO(data), where)
    pixels = _decode(data, cv2.IMREAD_COLOR, where)
    if pixels is None:
        raise InputError("cannot read the image", where, "download the file again")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def check_image(path: Path) -> Generator[Finding, None, tuple[int, int] | None]:
    """Yields a finding where an image is missing or broken; returns its (height, width) if not."""
    try:
        return image_size(path)
    except InputError as error:
        rule = "broken-image" if path.exists() else "missing-image"
        yield Finding(rule, str(path), "", error.what)
        return None


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright: turned as its EXIF says.

    Args:
        path: the file.
        size: (height, width) of its annotations, where they say it.

    Raises:
        InputError: the file is missing, no image, or of another size.
    """
    pixels = read_pixels(Path(path), cv2.IMREAD_COLOR)
    if pixels is None:
        if not Path(path).exists():
            raise InputError(
                "the image is missing",
                str(path),
                "put it there, or say where the images lie (--images)",
            )
        raise InputError("cannot read the image", str(path), "download the file again")
    if size is not None and pixels.shape[:2] != size:
        (height, width), (high, wide) = pixels.shape[:2], size
        raise InputError(
            f"an image of {width}x{height} pixels, annotated as one of {wide}x{high}",
            str(path),
            "give the image that was annotated; `amodal data check` lists all such",
        )
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def read_labels(path: Path) -> np.ndarray:
    """(H, W) integers of an image whose values are labels, 8 or 16 bit or with a palette.

    Raises:
        InputError: the file is missing, no image, or has several channels.
    """
    try:
        _header(path)
        with _Short(path) as file, Image.open(file, formats=_FORMATS) as image:
            # OpenCV turns a palette into colours; Pillow gives its indices.
            palette = np.asarray(image) if image.mode in ("P", "L", "1") else None
    except FileNotFoundError:
        raise InputError("the image is missing", str(path), "download it again") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"no image: {error}", str(path), "download it again") from None
    labels = palette if palette is not None else read_pixels(path, cv2.IMREAD_UNCHANGED)
    if labels is None or labels.ndim != 2:
        raise InputError("not one channel of labels", str(path), "download it again")
    return labels


def image_of(sample: Sample) -> np.ndarray:
    """The image of a sample that is to be written, (H, W, 3) uint8 RGB.

    Raises:
        InputError: it has none.
    """
    if sample.frame.image is None:
        raise InputError("a frame without an image", sample.name)
    return sample.frame.image


def write_images(
    folder: Path, samples: Iterable[Sample]
) -> Iterator[tuple[Sample, dict[str, Any]]]:
    """Write each frame's image as `000000.png` and so on.

    Yields:
        the sample, and COCO's entry of its image: `id`, `file_name`, `height`, `width`.

    Raises:
        InputError: a frame lacks its image.
    """
    for number, sample in enumerate(samples):
        name, image = f"{number:06d}.png", image_of(sample)
        write_image(folder / name, image)
        height, width = image.shape[:2]
        yield sample, {"id": number, "file_name": name, "height": height, "width": width}


def write_image(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB, or (H, W) labels, whole or not at all.

    Raises:
        InputError: the place cannot be written.
    """
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
