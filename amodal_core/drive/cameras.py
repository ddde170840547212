"""Several cameras of one drive: their names, and their frames of the same time together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from amodal_core.drive.assembler import DriveFrame
from amodal_core.drive.topics import NAMESPACE, Topic
from amodal_core.errors import InputError

_SAME_NS = 20_000_000  # frames that are no farther apart go through the model at once


def camera_names(topics: Sequence[str]) -> list[str]:
    """Short names of cameras: that of their image topics which tells them apart.

    /front/image_raw and /left/image_raw are front and left; one camera alone has none, "".

    Raises:
        InputError: a topic occurs twice.
    """
    if len(set(topics)) != len(topics):
        raise InputError("a camera is named twice", ", ".join(topics), "name each once")
    if len(topics) == 1:
        return [""]
    paths = [topic.removesuffix("/compressed").strip("/").split("/") for topic in topics]
    shortest = min(map(len, paths))
    first, last = 0, 0
    while first < shortest - 1 and len({path[first] for path in paths}) == 1:
        first += 1
    while last < shortest - 1 - first and len({path[-1 - last] for path in paths}) == 1:
        last += 1
    own = ["_".join(path[first : len(path) - last]) for path in paths]
    return [re.sub(r"\W", "_", name) for name in own]


def bag_name(topic: Topic, camera: str) -> str:
    """A result's topic in bags: under the namespace, and there under its camera's name."""
    return f"/{NAMESPACE}/{camera}/{topic.name}" if camera else topic.bag_name


def together(streams: Sequence[Iterator[DriveFrame]]) -> Iterator[list[tuple[int, DriveFrame]]]:
    """Frames of several cameras in order, those of the same time together.

    Yields:
        (which stream, its frame), of each stream one at most.
    """
    heads: dict[int, DriveFrame] = {}
    for n, stream in enumerate(streams):
        for made in stream:
            heads[n] = made
            break
    while heads:
        limit = min(made.frame.stamp for made in heads.values()) + _SAME_NS
        batch = [(n, made) for n, made in sorted(heads.items()) if made.frame.stamp <= limit]
        yield batch
        for n, _ in batch:
            following = next(streams[n], None)
            if following is None:
                del heads[n]
            else:
                heads[n] = following
