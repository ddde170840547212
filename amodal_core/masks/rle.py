"""Run-length kernels: everything about a mask that does not need its pixels.

A set of N masks is held as `runs` (M, 2) int64, half-open intervals of set pixels in column-major
order (pixel (row, column) of an image of height H has the index column * H + row), and `first`
(N + 1,) int64, mask n owning `runs[first[n]:first[n + 1]]`. Runs are sorted, disjoint and never
touch, so that equal masks have equal runs, and packing them gives the very bytes of
pycocotools.mask.encode (the COCO compressed RLE: counts of alternating zeros and ones, from the
fourth count on as differences to the count two before, in base 32 with a continuation bit).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

AND, OR, SUBTRACT = 0, 1, 2
MAX_PIXELS = 2**30  # of an image; more is a broken number
_NOWHERE = np.iinfo(np.int64).max  # behind every pixel


class RleError(ValueError):
    """Counts that are no RLE of their image; `index` is the mask's."""

    def __init__(self, index: int, what: str) -> None:
        super().__init__(f"mask {index}: {what}")
        self.index = index


@njit(cache=True, nogil=True)
def append_run(runs: np.ndarray, last: int, lowest: int, start: int, end: int) -> int:
    """Write [start, end) at `runs[last]` or lengthen the run before; gives the next free place."""
    if last > lowest and runs[last - 1, 1] == start:
        runs[last - 1, 1] = end
        return last
    runs[last, 0] = start
    runs[last, 1] = end
    return last + 1


@njit(cache=True, nogil=True)
def finite_box(box: np.ndarray) -> bool:
    """Whether all four numbers are finite."""
    return (
        np.isfinite(box[0]) and np.isfinite(box[1]) and np.isfinite(box[2]) and np.isfinite(box[3])
    )


@njit(cache=True, nogil=True)
def copy_runs(runs: np.ndarray, begin: int, end: int, out: np.ndarray, at: int) -> None:
    """Write runs [begin, end) to `out` from `at` on; numba compiles slices for a second each."""
    for m in range(begin, end):
        out[at + m - begin, 0], out[at + m - begin, 1] = runs[m, 0], runs[m, 1]


@njit(cache=True, nogil=True)
def _parse(
    text: np.ndarray, ends: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    runs = np.empty((len(text) // 2 + len(ends), 2), np.int64)
    first = np.zeros(len(ends) + 1, np.int64)
    last, at = 0, 0
    for n in range(len(ends)):
        lowest, position, index = last, 0, 0
        before, before2 = 0, 0
        while at < ends[n]:
            value, shift, more = 0, 0, True
            while more:
                if at >= ends[n] or shift > 55:
                    return runs, first, n
                c = np.int64(text[at]) - 48
                at += 1
                if c < 0 or c > 63:
                    return runs, first, n
                value |= (c & 0x1F) << shift
                shift += 5
                more = (c & 0x20) != 0
                if not more and c & 0x10:
                    value |= np.int64(-1) << shift
            if index > 2:
                value += before2
            if value < 0 or value > pixels[n] - position:
                return runs, first, n
            if index % 2 and value:
                last = append_run(runs, last, lowest, position, position + value)
            position += value
            before2, before = before, value
            index += 1
        if position != pixels[n]:
            return runs, first, n
        first[n + 1] = last
    return runs[:last].copy(), first, -1


@njit(cache=True, nogil=True)
def _pack(runs: np.ndarray, first: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    masks = len(first) - 1
    # A count below 2**34 and its differences take at most 8 characters; every run has two counts.
    text = np.empty(16 * len(runs) + 16 * masks, np.uint8)
    ends = np.empty(masks, np.int64)
    at = 0
    for n in range(masks):
        begin, end = first[n], first[n + 1]
        counts = 2 * (end - begin)
        position, before, before2 = 0, 0, 0
        tail = end == begin or runs[end - 1, 1] < pixels
        for index in range(counts + tail):
            if index == counts:
                count = pixels - position
            else:
                count = runs[begin + index // 2, index % 2] - position
            position += count
            value = count - before2 if index > 2 else count
            before2, before = before, count
            more = True
            while more:
                c = value & 0x1F
                value >>= 5
                more = value != -1 if c & 0x10 else value != 0
                text[at] = c + (0x20 if more else 0) + 48
                at += 1
        ends[n] = at
    return text[:at], ends


@njit(cache=True, nogil=True)
def gather(
    a: np.ndarray, first_a: np.ndarray, b: np.ndarray, first_b: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The masks of these indices, a's N from 0 on and b's from N on: runs, first."""
    masks = len(first_a) - 1
    out_first = np.zeros(len(chosen) + 1, np.int64)
    for k in range(len(chosen)):
        first, n = (first_a, chosen[k]) if chosen[k] < masks else (first_b, chosen[k] - masks)
        out_first[k + 1] = out_first[k] + first[n + 1] - first[n]
    out = np.empty((out_first[-1], 2), np.int64)
    for k in range(len(chosen)):
        if chosen[k] < masks:
            copy_runs(a, first_a[chosen[k]], first_a[chosen[k] + 1], out, out_first[k])
        else:
            n = chosen[k] - masks
            copy_runs(b, first_b[n], first_b[n + 1], out, out_first[k])
    return out, out_first


@njit(cache=True, nogil=True)
def bounds(
    runs: np.ndarray, first: np.ndarray, heights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) int64 xyxy, exclusive maximum, zeros where empty, and areas (N,) int64."""
    masks = len(first) - 1
    boxes = np.zeros((masks, 4), np.int64)
    areas = np.zeros(masks, np.int64)
    for n in range(masks):
        if first[n] == first[n + 1]:
            continue
        height = heights[n]
        top, bottom, area = height, 0, 0
        for m in range(first[n], first[n + 1]):
            start, end = runs[m, 0], runs[m, 1]
            area += end - start
            row = start % height
            if row + end - start > height:
                top, bottom = 0, height
            else:
                top = min(top, row)
                bottom = max(bottom, row + end - start)
        boxes[n, 0] = runs[first[n], 0] // height
        boxes[n, 1] = top
        boxes[n, 2] = (runs[first[n + 1] - 1, 1] - 1) // height + 1
        boxes[n, 3] = bottom
        areas[n] = area
    return boxes, areas


@njit(cache=True, nogil=True)
def shared(
    runs_a: np.ndarray, p: int, end_p: int, runs_b: np.ndarray, q: int, end_q: int, shift: int
) -> int:
    """Pixels that two masks share, a's runs `p` to `end_p`, moved by `shift`, and b's."""
    pixels = 0
    # Which run ends first nobody foresees: sums instead of branches, and places without a sign,
    # which numba need not look at, halve a step.
    a, b = np.uint64(p), np.uint64(q)
    while a < np.uint64(end_p) and b < np.uint64(end_q):
        end_a, end_b = runs_a[a, 1] + shift, runs_b[b, 1]
        pixels += max(min(end_a, end_b) - max(runs_a[a, 0] + shift, runs_b[b, 0]), 0)
        a += np.uint64(end_a <= end_b)
        b += np.uint64(end_b <= end_a)
    return pixels


@njit(cache=True, nogil=True)
def shared_each(
    runs_a: np.ndarray, first_a: np.ndarray, runs_b: np.ndarray, first_b: np.ndarray
) -> np.ndarray:
    """(N,) int64 pixels that two sets share, mask by mask."""
    out = np.zeros(len(first_a) - 1, np.int64)
    for n in range(len(out)):
        out[n] = shared(runs_a, first_a[n], first_a[n + 1], runs_b, first_b[n], first_b[n + 1], 0)
    return out


@njit(cache=True, nogil=True)
def intersections(
    runs_a: np.ndarray,
    first_a: np.ndarray,
    boxes_a: np.ndarray,
    runs_b: np.ndarray,
    first_b: np.ndarray,
    boxes_b: np.ndarray,
    shifts: np.ndarray,
    pairs: np.ndarray,
    height: int,
) -> np.ndarray:
    """(N, M) int64 pixels that mask a of N and b of M share, a moved by shifts (N, 2) int64 (x, y).

    Only pairs (N, M) bool are looked at; the others are given 0. The move is exact for a mask that
    does not run from the bottom of a column into the next one's top, and is not clipped by the
    image: pixels moved out of it meet nothing that their box misses.
    """
    out = np.zeros((len(first_a) - 1, len(first_b) - 1), np.int64)
    for i in range(out.shape[0]):
        dx, dy = shifts[i, 0], shifts[i, 1]
        shift = dx * height + dy
        for j in range(out.shape[1]):
            if (
                not pairs[i, j]
                or boxes_a[i, 0] + dx >= boxes_b[j, 2]
                or boxes_b[j, 0] >= boxes_a[i, 2] + dx
                or boxes_a[i, 1] + dy >= boxes_b[j, 3]
                or boxes_b[j, 1] >= boxes_a[i, 3] + dy
            ):
                continue
            out[i, j] = shared(
                runs_a, first_a[i], first_a[i + 1], runs_b, first_b[j], first_b[j + 1], shift
            )
    return out


@njit(cache=True, nogil=True)
def _combine_one(
    runs: np.ndarray,
    last: int,
    a: np.ndarray,
    p: int,
    p_end: int,
    b: np.ndarray,
    q: int,
    q_end: int,
    how: int,
) -> int:
    lowest, position = last, _NOWHERE
    if p < p_end:
        position = a[p, 0]
    if q < q_end:
        position = min(position, b[q, 0])
    while p < p_end or q < q_end:
        in_a = p < p_end and a[p, 0] <= position
        in_b = q < q_end and b[q, 0] <= position
        until = _NOWHERE
        if p < p_end:
            until = min(until, a[p, 1] if in_a else a[p, 0])
        if q < q_end:
            until = min(until, b[q, 1] if in_b else b[q, 0])
        if how == AND:
            inside = in_a and in_b
        elif how == OR:
            inside = in_a or in_b
        else:
            inside = in_a and not in_b
        if inside:
            last = append_run(runs, last, lowest, position, until)
        if p < p_end and a[p, 1] <= until:
            p += 1
        if q < q_end and b[q, 1] <= until:
            q += 1
        position = until
    return last


@njit(cache=True, nogil=True)
def combine(
    a: np.ndarray, first_a: np.ndarray, b: np.ndarray, first_b: np.ndarray, how: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mask by mask a AND b, a OR b, or a SUBTRACT b, of two sets of N: runs, first."""
    runs = np.empty((len(a) + len(b), 2), np.int64)
    first = np.zeros(len(first_a), np.int64)
    last = 0
    for n in range(len(first_a) - 1):
        last = _combine_one(
            runs, last, a, first_a[n], first_a[n + 1], b, first_b[n], first_b[n + 1], how
        )
        first[n + 1] = last
    return runs[:last].copy(), first


@njit(cache=True, nogil=True)
def peel(runs: np.ndarray, first: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each mask shows when those earlier in `order` (N,) int64 lie in front: runs, first."""
    covered = np.empty((len(runs), 2), np.int64)
    spare = np.empty((len(runs), 2), np.int64)
    # A mask cut by others has at most as many runs as both have together.
    shown = np.empty((len(runs) * 2 + len(order), 2), np.int64)
    begins = np.zeros(len(order), np.int64)
    ends = np.zeros(len(order), np.int64)
    count, last = 0, 0
    for n in order:
        begin, end = first[n], first[n + 1]
        begins[n] = ends[n] = last
        if begin == end:
            continue
        # Only what is covered between the mask's first and last pixel matters.
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            if covered[middle, 1] < runs[begin, 0]:
                low = middle + 1
            else:
                high = middle
        stop, high = low, count
        while stop < high:
            middle = (stop + high) // 2
            if covered[middle, 0] <= runs[end - 1, 1]:
                stop = middle + 1
            else:
                high = middle
        need = last + end - begin + stop - low
        if need > len(shown):
            larger = np.empty((2 * need, 2), np.int64)
            copy_runs(shown, 0, last, larger, 0)
            shown = larger
        last = _combine_one(shown, last, runs, begin, end, covered, low, stop, SUBTRACT)
        ends[n] = last
        copy_runs(covered, 0, low, spare, 0)
        at = _combine_one(spare, low, runs, begin, end, covered, low, stop, OR)
        copy_runs(covered, stop, count, spare, at)
        count = at + count - stop
        covered, spare = spare, covered
    out = np.empty((last, 2), np.int64)
    out_first = np.zeros(len(order) + 1, np.int64)
    at = 0
    for n in range(len(order)):
        length = ends[n] - begins[n]
        out[at : at + length] = shown[begins[n] : ends[n]]
        at += length
        out_first[n + 1] = at
    return out, out_first


@njit(cache=True, nogil=True)
def _encode_crop(
    crop: np.ndarray, x: int, y: int, height: int, width: int, runs: np.ndarray
) -> int:
    last = 0
    top, bottom = max(0, -y), min(crop.shape[0], height - y)
    for column in range(max(0, -x), min(crop.shape[1], width - x)):
        base = (column + x) * height + y
        start = -1
        for row in range(top, bottom):
            if crop[row, column]:
                if start < 0:
                    start = row
            elif start >= 0:
                last = append_run(runs, last, 0, base + start, base + row)
                start = -1
        if start >= 0:
            last = append_run(runs, last, 0, base + start, base + bottom)
    return last


@njit(cache=True, nogil=True)
def _decode_crop(
    runs: np.ndarray, begin: int, end: int, box: np.ndarray, height: int
) -> np.ndarray:
    crop = np.zeros((box[3] - box[1], box[2] - box[0]), np.bool_)
    for m in range(begin, end):
        start = runs[m, 0]
        column = start // height
        while start < runs[m, 1]:
            stop = min(runs[m, 1], (column + 1) * height)
            for row in range(start - column * height, stop - column * height):
                crop[row - box[1], column - box[0]] = True
            start = stop
            column += 1
    return crop


@njit(cache=True, nogil=True)
def warp(
    runs: np.ndarray,
    first: np.ndarray,
    boxes: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    height: int,
    width: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Carry each mask from its source box to its target box, nearest pixel: runs, first.

    Args:
        runs: see the module.
        first: see the module.
        boxes: (N, 4) int64, the masks' own boxes.
        source: (N, 4) float64 xyxy.
        target: (N, 4) float64 xyxy; empty or non-finite gives an empty mask.
        height: of the image.
        width: of the image.
    """
    masks = len(first) - 1
    runs_out = np.empty((len(runs) + 64, 2), np.int64)
    first_out = np.zeros(masks + 1, np.int64)
    last = 0
    for n in range(masks):
        first_out[n + 1] = last
        scale_x = (source[n, 2] - source[n, 0]) / max(target[n, 2] - target[n, 0], 1e-9)
        scale_y = (source[n, 3] - source[n, 1]) / max(target[n, 3] - target[n, 1], 1e-9)
        if first[n] == first[n + 1] or not (scale_x > 1e-6 and scale_y > 1e-6):
            continue
        if not (scale_x < 1e6 and scale_y < 1e6) or not finite_box(target[n]):
            continue
        # Where the mask's own box lands, so that nothing beyond it is visited.
        left = target[n, 0] + (boxes[n, 0] - source[n, 0]) / scale_x
        right = target[n, 0] + (boxes[n, 2] - source[n, 0]) / scale_x
        top = target[n, 1] + (boxes[n, 1] - source[n, 1]) / scale_y
        bottom = target[n, 1] + (boxes[n, 3] - source[n, 1]) / scale_y
        u0, u1 = int(max(0.0, np.ceil(left - 0.5))), int(min(width, np.ceil(right - 0.5)))
        v0, v1 = int(max(0.0, np.ceil(top - 0.5))), int(min(height, np.ceil(bottom - 0.5)))
        lowest, m = last, first[n]
        for u in range(u0, u1):
            column = int(np.floor(source[n, 0] + (u + 0.5 - target[n, 0]) * scale_x))
            column = min(max(column, boxes[n, 0]), boxes[n, 2] - 1)
            base = column * height
            while m < first[n + 1] and runs[m, 1] <= base:
                m += 1
            k = m
            while k < first[n + 1] and runs[k, 0] < base + height:
                # Row v is set when its source row floor(source + (v + .5 - target) * scale) is.
                a = max(runs[k, 0] - base, 0) - source[n, 1]
                b = min(runs[k, 1] - base, height) - source[n, 1]
                start = max(v0, int(np.ceil(target[n, 1] + a / scale_y - 0.5)))
                end = min(v1, int(np.ceil(target[n, 1] + b / scale_y - 0.5)))
                if start < end:
                    if last == len(runs_out):
                        larger = np.empty((2 * last, 2), np.int64)
                        copy_runs(runs_out, 0, last, larger, 0)
                        runs_out = larger
                    last = append_run(runs_out, last, lowest, u * height + start, u * height + end)
                k += 1
        first_out[n + 1] = last
    return runs_out[:last].copy(), first_out


def parse(counts: Sequence[bytes], pixels: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Runs and first of compressed counts; each must fill an image of that many pixels.

    Args:
        counts: N masks.
        pixels: (N,) int64 of each mask's image, or one number for all.

    Raises:
        RleError: a mask's counts are no RLE of such an image, or that has over `MAX_PIXELS`.
    """
    text = np.frombuffer(b"".join(counts), np.uint8)
    ends = np.cumsum([len(c) for c in counts], dtype=np.int64)
    if np.any(np.asarray(pixels) > MAX_PIXELS):
        raise RleError(
            int(np.argmax(np.asarray(pixels) > MAX_PIXELS)), f"over {MAX_PIXELS} pixels of image"
        )
    pixels = np.ascontiguousarray(np.broadcast_to(np.asarray(pixels, np.int64), len(counts)))
    runs, first, bad = _parse(text, ends, pixels)
    if bad >= 0:
        shown, of = counts[bad][:20], pixels[bad]
        raise RleError(bad, f"{shown!r} is not the RLE of an image of {of} pixels")
    return runs, first


def pack(runs: np.ndarray, first: np.ndarray, pixels: int) -> list[bytes]:
    """Compressed counts of each mask, as pycocotools writes them."""
    text, ends = _pack(runs, first, pixels)
    joined, begin, counts = text.tobytes(), 0, []
    for end in ends.tolist():
        counts.append(joined[begin:end])
        begin = end
    return counts


def encode_crops(
    crops: Sequence[np.ndarray], offsets: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Runs and first of (h, w) bool crops whose top left pixels lie at offsets (N, 2) int x, y."""
    encoded = [np.zeros((0, 2), np.int64)]
    first = np.zeros(len(crops) + 1, np.int64)
    for n, crop in enumerate(crops):
        pixels = np.ascontiguousarray(crop, dtype=bool)
        h, w = pixels.shape
        runs = np.empty(((h + 1) // 2 * w, 2), np.int64)
        x, y = int(offsets[n][0]), int(offsets[n][1])
        encoded.append(runs[: _encode_crop(pixels, x, y, size[0], size[1], runs)])
        first[n + 1] = first[n] + len(encoded[-1])
    return np.concatenate(encoded), first


def decode_crops(
    runs: np.ndarray, first: np.ndarray, boxes: np.ndarray, height: int
) -> list[np.ndarray]:
    """The masks as (h, w) bool crops of their integer boxes (N, 4)."""
    return [
        _decode_crop(runs, first[n], first[n + 1], boxes[n], height) for n in range(len(first) - 1)
    ]
