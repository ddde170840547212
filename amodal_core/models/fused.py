"""Two witnesses, a network and the geometry of the scan, matched by masks and range.

They fail on different objects: geometry has near and well-scanned ones right, whatever the picture
looks like, the network partly hidden ones, and it knows what only looks like an object. What speaks
for and against an object makes its score (`witnesses.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from amodal_core.frame import Calibration, Frame, Instances, Report
from amodal_core.geometry.projection import depth_image as projected_depth
from amodal_core.masks.occluders import occlusion_order, occlusion_rates
from amodal_core.models import registry
from amodal_core.models.base import Model
from amodal_core.models.far_view import FarView
from amodal_core.models.geometric import Geometric
from amodal_core.models.witnesses import (
    BOTH,
    FEATURES,
    NETWORK,
    PEOPLE,
    SCAN,
    Evidence,
    height_off,
    log_odds,
    measured_evidence,
)
from amodal_core.settings import Amount, Count, Share, settings_type

# Kinds of vehicle, and who rides from who walks, are not told apart where witnesses are matched.
_HEIGHT_OFF = 0.3  # as a log, of what is as high as its class
_NO_VAN = 2.9  # metres, from which height on
_TALL, _LOW = ("truck", "bus", "tram"), ("car", "van")
_UNHEARD = 1e-3  # probability that every class has, so that some high vehicle is left
_LEVEL, _LEVEL_SHARE = 1.0, 0.03  # metres, or share of the depth, apart at the same depth
_KINDS = {"van": "car", "truck": "car", "bus": "car", "tram": "car", "cyclist": "pedestrian"}


@settings_type
class FusedConfig:
    """How the witnesses are heard.

    Attributes:
        overlap: least IoU of whole or of visible masks of one object.
        depth: metres that they may differ in depth,
        depth_share: or share of the depth, whichever is more.
        covered: share of what shows of an object of the network alone, from which on it is taken
            for a piece of one of the geometry's that covers so much of it and is no farther away,
        convincing: unless it is a vehicle, its score at least this and its height its class's: then
            it is one, and the geometry's, at the same depth, is it and what stands around it.
        outweighed: factor on the score of such a piece, or of such an object of the geometry's.
        far_focal: pixels of the focal length at which the network sees the strip around the horizon
            a second time, where the camera is calibrated; 0 for one look (`far_view.py`).
        near_pixels: of the whole image at its first look, if there is a second.
    """

    overlap: Share = 0.4
    depth: Amount = 2.0
    depth_share: Share = 0.15
    covered: Share = 0.7
    convincing: Share = 0.45
    outweighed: Share = 0.3
    far_focal: Amount = 780.0
    near_pixels: Count = 117_000


class Fused:
    """The flagship and `geometric` as one model; without a scan it is the flagship.

    Of an object that both find, masks and class are the network's, but for what it calls a car or a
    van and is too high for one; depth and 3D box are the geometry's. The score weighs both scores,
    how well they agree, and the object's size (`witnesses.py`).

    Args:
        config: how they are heard.
        learned: the network.
        geometric: the geometry.
    """

    name = "fused"
    inputs = frozenset({"image"})
    optional = frozenset({"depth", "points", "calibration"})
    Config = FusedConfig

    def __init__(self, config: FusedConfig, learned: Model, geometric: Geometric) -> None:
        self.config, self.learned, self.geometric = config, learned, geometric
        self.views = FarView(learned, config.far_focal, config.near_pixels)
        self.classes = learned.classes

    @classmethod
    def from_checkpoint(cls, path: str, device: str = "cpu", **settings: Any) -> Fused:
        """From the flagship's checkpoint.

        Args:
            path: of the checkpoint.
            device: where the network runs.
            **settings: of `FusedConfig`; the others replace the network's.

        Raises:
            InputError: the checkpoint is missing or does not fit, or a setting is none of either.
        """
        own = {k: settings.pop(k) for k in FusedConfig.__dataclass_fields__ if k in settings}
        learned = registry.class_of("flagship").from_checkpoint(path, device, **settings)
        return cls(FusedConfig(**own), learned, Geometric())

    @property
    def device(self) -> str:
        """Where the network runs."""
        return str(getattr(self.learned, "device", "cpu"))

    def reset(self) -> None:
        """Nothing to forget: every frame stands alone."""

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        """The instances of each frame, best first; on the host where there is a scan."""
        report = report if report is not None else Report()
        frames = [_with_depth(frame) for frame in frames]
        results = self.views.infer(frames, report)
        for n, frame in enumerate(frames):
            if frame.points is None or frame.calibration is None:
                continue
            (geometric,) = self.geometric.infer([frame], report)
            with report.time("fused.match"):
                objects, evidence = self.heard(results[n].numpy(), geometric.numpy(), frame)
                outweighed = np.where(evidence.outweighed, self.config.outweighed, 1.0)
                scores = evidence.scores() * outweighed
                scored = replace(objects, scores=scores.astype(np.float32))
                results[n] = scored[np.argsort(-scores, kind="stable")]
        return results

    def heard(
        self, learned: Instances, geometric: Instances, frame: Frame
    ) -> tuple[Instances, Evidence]:
        """The objects of both witnesses, not scored yet, and what speaks for each.

        Args:
            learned: the network's, on the host.
            geometric: the geometry's, on the host.
            frame: with points and calibration.
        """
        assert frame.calibration is not None
        pieces, merged = self._outweighed(geometric, learned, frame.calibration)
        table = _places(tuple(self.geometric.classes), tuple(self.classes))
        with_class = table[geometric.class_ids] >= 0
        if not with_class.all():
            geometric, merged = geometric[with_class], merged[with_class]
        as_learned = table[geometric.class_ids]
        apart = np.abs(geometric.depths[:, None] - learned.depths[None])
        together = (apart <= self._tolerance(geometric)) | (learned.depths[None] <= 0)
        alike = geometric.amodal.rle().iou(learned.amodal.rle(), pairs=together)
        shown = geometric.visible.rle().iou(learned.visible.rle(), pairs=together)
        overlap = np.maximum(alike, shown)
        g, n = self._matches(learned, as_learned, overlap)
        # Of matches first, then of either witness alone.
        rest_g = np.delete(np.arange(len(geometric)), g)
        rest_l = np.delete(np.arange(len(learned)), n)
        known, boxes3d = self._probabilities(learned), geometric.boxes3d
        probabilities = [
            self._high(known[n], None if boxes3d is None else np.asarray(boxes3d)[g, 5]),
            np.eye(len(self.classes), dtype=np.float32)[as_learned[rest_g]],
            known[rest_l],
        ]
        objects = _united(learned, geometric, np.concatenate(probabilities), n, rest_l, g, rest_g)
        # What speaks for each.
        kinds = np.repeat([BOTH, SCAN, NETWORK], [len(g), len(rest_g), len(rest_l)])
        said = log_odds(np.asarray(learned.scores))
        scanned = log_odds(np.asarray(geometric.scores))
        none_g, none_l = np.zeros(len(rest_g)), np.zeros(len(rest_l))
        columns = {
            "network": np.concatenate([said[n], none_g, said[rest_l]]),
            "scan": np.concatenate([scanned[g], scanned[rest_g], none_l]),
            "overlap": np.concatenate([alike[g, n], none_g, overlap.max(0, initial=0)[rest_l]]),
        }
        columns |= measured_evidence(objects, self.classes, frame.calibration)
        values = np.stack([columns[name] for name in FEATURES], axis=1)
        outweighed = np.concatenate([np.zeros(len(g), bool), merged[rest_g], pieces[rest_l]])
        return objects, Evidence(kinds, values, outweighed)

    def _tolerance(self, geometric: Instances) -> np.ndarray:
        """(N, 1) metres that the depths of one object may differ by."""
        share = self.config.depth_share * geometric.depths[:, None]
        return np.asarray(np.maximum(self.config.depth, share))

    def _outweighed(
        self, geometric: Instances, learned: Instances, calibration: Calibration
    ) -> tuple[np.ndarray, np.ndarray]:
        """What lies within an object of the other witness: which of the two is the object?

        Returns:
            (M,) bool, objects of the network that are pieces of the geometry's: they would lie
            behind it where they are said to show. (N,) bool, objects of the geometry's that are
            one of the network's and what stands around it, a car and the tree over it.
        """
        shown = learned.visible.rle()
        farther = learned.depths[None] - geometric.depths[:, None]
        behind = farther >= -self._tolerance(geometric)
        inside = geometric.amodal.rle().intersections(shown, pairs=behind)
        contested = behind & (inside / np.maximum(shown.areas(), 1) >= self.config.covered)
        convincing = np.asarray(learned.scores) >= self.config.convincing
        people = _among(tuple(self.classes), PEOPLE)
        convincing &= ~people[learned.class_ids]  # of people on real streets it invents some
        convincing &= height_off(learned, self.classes, calibration) <= _HEIGHT_OFF
        level = np.abs(farther) <= np.maximum(_LEVEL, _LEVEL_SHARE * geometric.depths[:, None])
        pieces = (contested & ~convincing).any(0)
        return np.asarray(pieces), np.asarray((contested & convincing & level).any(1))

    def _probabilities(self, learned: Instances) -> np.ndarray:
        """(M, C) of the network's detections; without any, each has its class for sure."""
        if learned.class_probabilities is None:
            return np.eye(len(self.classes), dtype=np.float32)[np.asarray(learned.class_ids)]
        return np.asarray(learned.class_probabilities, np.float32)

    def _high(self, probabilities: np.ndarray, metres: np.ndarray | None) -> np.ndarray:
        """(P, C) the network's; what the geometry finds so high, (P,), is neither car nor van.

        It is then the most probable of the vehicles that are as high.
        """
        tall, low = _among(tuple(self.classes), _TALL), _among(tuple(self.classes), _LOW)
        if metres is None or not tall.any():
            return probabilities
        high = low[probabilities.argmax(1)] & (metres >= _NO_VAN)
        left = np.where(tall, probabilities + _UNHEARD, 0.0)
        left /= left.sum(1, keepdims=True)
        return np.where(high[:, None], left, probabilities).astype(np.float32)

    def _matches(
        self, learned: Instances, as_learned: np.ndarray, overlap: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(P,) indices of geometric's and of the network's objects that are the same, best first.

        Args:
            learned: M objects of the network.
            as_learned: (N,) the network's class of each of geometric's.
            overlap: (N, M) IoU of their masks, 0 where they are apart in depth.
        """
        kinds = _kinds(tuple(self.classes))
        same = kinds[as_learned][:, None] == kinds[learned.class_ids][None]
        overlap = np.where(same & (overlap >= self.config.overlap), overlap, 0.0)
        matches = []
        while overlap.size:
            i, j = divmod(int(overlap.argmax()), overlap.shape[1])
            if overlap[i, j] <= 0:
                break
            matches.append((i, j))
            overlap[i], overlap[:, j] = 0, 0
        pairs = np.array(matches, np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]


@cache
def _places(names: tuple[str, ...], classes: tuple[str, ...]) -> np.ndarray:
    """(N,) int64 places of names in classes, -1 of those that are not there."""
    return np.array([classes.index(n) if n in classes else -1 for n in names], np.int64)


@cache
def _among(classes: tuple[str, ...], names: tuple[str, ...]) -> np.ndarray:
    """(C,) bool, which of the classes are among the names."""
    return np.array([name in names for name in classes], bool)


@cache
def _kinds(classes: tuple[str, ...]) -> np.ndarray:
    """(C,) int64, equal for classes that witnesses are not told apart by."""
    kinds = [_KINDS.get(name, name) for name in classes]
    return np.array([kinds.index(kind) for kind in kinds], np.int64)


def _united(
    learned: Instances,
    geometric: Instances,
    probabilities: np.ndarray,
    n: np.ndarray,
    rest_l: np.ndarray,
    g: np.ndarray,
    rest_g: np.ndarray,
) -> Instances:
    """The objects of both witnesses, without scores: matches, the geometry's own, the network's.

    Masks of matches are the network's, their places the geometry's.

    Args:
        learned: the network's.
        geometric: the geometry's.
        probabilities: (N, C) of the objects, over the network's classes.
        n: (P,) rows of the network's that are matched.
        rest_l: the others of it.
        g: (P,) rows of the geometry's that are the same.
        rest_g: the others of it.
    """
    order = np.concatenate([n, len(learned) + rest_g, rest_l])
    amodal = learned.amodal.rle().picked(geometric.amodal.rle(), order)
    visible = learned.visible.rle().picked(geometric.visible.rle(), order)
    depths = [geometric.depths[g], geometric.depths[rest_g], learned.depths[rest_l]]
    depth = np.concatenate(depths).astype(np.float32)
    boxes3d = np.full((len(amodal), 7), np.nan, np.float32)
    if geometric.boxes3d is not None:
        boxes3d[: len(g) + len(rest_g)] = geometric.boxes3d[np.concatenate([g, rest_g])]
    embeddings = None
    if learned.embeddings is not None:
        # What the geometry alone has found has no appearance, for or against anything.
        unknown = np.zeros((len(rest_g), np.shape(learned.embeddings)[1]), np.float32)
        own = np.asarray(learned.embeddings, np.float32)
        embeddings = np.concatenate([own[n], unknown, own[rest_l]])
    return Instances(
        size=learned.size,
        amodal_boxes=amodal.boxes(),
        visible_boxes=visible.boxes(),
        scores=np.zeros(len(amodal), np.float32),
        class_ids=probabilities.argmax(1),
        amodal=amodal,
        visible=visible,
        occlusion_rates=occlusion_rates(amodal, visible),
        depths=depth,
        occluders=occlusion_order(depth, amodal, visible),
        embeddings=embeddings,
        boxes3d=boxes3d,
        class_probabilities=probabilities,
    )


def _with_depth(frame: Frame) -> Frame:
    """The same; a scan without a depth image gets one, which the network would lack."""
    if frame.depth is not None or frame.points is None or frame.calibration is None:
        return frame
    return replace(frame, depth=projected_depth(frame.points, frame.calibration))
