"""Tracks of objects over the frames of clips: where each is in each moment, as one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from amodal_core.models.layers.batch import Batch

_KEPT = 1024  # crops of a long clip that are kept at once


@dataclass
class ClipTracks:
    """N objects over the T moments of their clips; shorter clips end in moments without anything.

    Attributes:
        frames: (N, T) int64, the frame of each moment.
        rows: (N, T) int64, the object's place among those of the frame, -1 where it is not there.
        boxes: (N, T, 4) float32 xyxy, the visible box; where nothing shows, a guess between the
            sights before and after it.
        clips: (N,) int64, the clip of each object.
    """

    frames: np.ndarray
    rows: np.ndarray
    boxes: np.ndarray
    clips: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def present(self) -> np.ndarray:
        """(N, T) bool."""
        return self.rows >= 0

    def select(self, index: np.ndarray) -> ClipTracks:
        """Some of the objects."""
        return ClipTracks(
            self.frames[index], self.rows[index], self.boxes[index], self.clips[index]
        )


def tracks_of_clips(
    ids: Sequence[np.ndarray], boxes: Sequence[np.ndarray], clips: Sequence[Sequence[int]]
) -> ClipTracks:
    """Gather what is known of each object over the frames of its clip.

    Args:
        ids: of each frame, (M,) identities, unique in it.
        boxes: of each frame, (M, 4) visible boxes, without extent where nothing shows.
        clips: the frames of each clip in the order of time. A frame may come twice.

    Returns:
        Objects that show nothing in the whole clip are left out.
    """
    longest = max((len(c) for c in clips), default=0)
    frames, rows, places, owners = [], [], [], []
    for number, clip in enumerate(clips):
        rows_of = [{int(k): n for n, k in enumerate(ids[f].tolist())} for f in clip]
        for identity in sorted(set().union(*rows_of)):
            row = np.full(longest, -1, np.int64)
            row[: len(clip)] = [k.get(identity, -1) for k in rows_of]
            box = np.zeros((longest, 4), np.float32)
            for t, f in enumerate(clip):
                if row[t] >= 0:
                    box[t] = boxes[f][row[t]]
            shows = np.all(box[:, 2:] > box[:, :2], axis=1)
            if not shows.any():
                continue
            frame = np.zeros(longest, np.int64)
            frame[: len(clip)] = clip
            frames.append(frame)
            rows.append(row)
            places.append(filled(box, shows))
            owners.append(number)
    n = len(frames)
    return ClipTracks(
        np.array(frames, np.int64).reshape(n, longest),
        np.array(rows, np.int64).reshape(n, longest),
        np.array(places, np.float32).reshape(n, longest, 4),
        np.array(owners, np.int64),
    )


def filled(boxes: np.ndarray, shows: np.ndarray) -> np.ndarray:
    """Boxes of an object over time, with guesses where it shows nothing.

    The centre moves evenly from one sight to the next and stays before the first and after the
    last. The size is the largest that was seen, as what is seen last before an object vanishes is
    a sliver of it.

    Args:
        boxes: (T, 4) float32 xyxy.
        shows: (T,) bool, at least one.
    """
    moments, at = np.arange(len(boxes)), np.flatnonzero(shows)
    size = (boxes[at, 2:] - boxes[at, :2]).max(0)
    centres = (boxes[at, :2] + boxes[at, 2:]) / 2
    middle = np.stack([np.interp(moments, at, centres[:, k]) for k in (0, 1)], 1)
    guess = np.concatenate([middle - size / 2, middle + size / 2], 1)
    return np.where(shows[:, None], boxes, guess).astype(np.float32)


@dataclass
class Crops:
    """The A crops of tracks, object by object in the order of time.

    Attributes:
        present: (N, T) bool on the device, the moments that have a crop.
        places: (A,) int64 on the device, each crop's moment, counted through all objects' rows.
        boxes: (A, 4) float32 on the device, xyxy.
        where: (A,) int64 on the device, the frame.
        frames: (A,) int64 on the host, the same.
        rows: (A,) int64 on the host, the object's place among those of the frame.
    """

    present: torch.Tensor
    places: torch.Tensor
    boxes: torch.Tensor
    where: torch.Tensor
    frames: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, tracks: ClipTracks, device: torch.device) -> Crops:
        """One crop for each moment in which an object is there."""
        present = tracks.present
        frames = tracks.frames[present]
        return cls(
            torch.from_numpy(present).to(device),
            torch.from_numpy(np.flatnonzero(present)).to(device),
            torch.from_numpy(tracks.boxes[present]).to(device),
            torch.from_numpy(frames).to(device),
            frames,
            tracks.rows[present],
        )

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """(N, T, ...) from (A, ...), zeros where there is no crop."""
        out = values.new_zeros((self.present.numel(), *values.shape[1:]))
        return out.index_copy(0, self.places, values).unflatten(0, self.present.shape)

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        """(A, ...) from (N, T, ...), the inverse."""
        return values.flatten(0, 1)[self.places]


def tracks_in(batch: Batch) -> tuple[ClipTracks, list[np.ndarray]]:
    """The objects that a batch's targets name, and (M,) bool of each frame, which are ignored."""
    assert batch.targets is not None
    ends = np.cumsum([len(t) for t in batch.targets])[:-1]

    def of(name: str) -> list[np.ndarray]:
        # In one piece: each copy from a device waits for it.
        values = torch.cat([getattr(t, name) for t in batch.targets or ()]).cpu().numpy()
        return np.split(values, ends)

    clips = [range(k, k + batch.clip) for k in range(0, len(batch), batch.clip)]
    return tracks_of_clips(of("ids"), of("visible_boxes"), clips), of("ignore")


def portions(tracks: ClipTracks) -> Iterator[ClipTracks]:
    """Objects in groups of so many crops as are kept at once, one object at least."""
    counts = tracks.present.sum(1)
    begin = 0
    while begin < len(tracks):
        room = np.cumsum(counts[begin:]) <= _KEPT
        end = begin + max(1, int(room.sum()))
        yield tracks.select(np.arange(begin, end))
        begin = end
