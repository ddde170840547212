"""What a replay was: numbers by frame and by track, gathered while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from amodal_core.frame import NOTES, FrameWarning, Instances, Report, Tracks, counted
from amodal_core.views.report.tiles import Tile, identities

TOTAL = "total"
# Hidden share from which an object counts as partly hidden.
PARTLY_HIDDEN = 0.1


@dataclass(frozen=True)
class TrackRow:
    """A track in a frame.

    Attributes:
        frame: the frame's place in the replay, from 0.
        id: the track's.
        class_id: index into the classes.
        coasted: carried, not seen.
        occlusion_rate: 0-1.
        depth: metres, 0 where unknown.
    """

    frame: int
    id: int
    class_id: int
    coasted: bool
    occlusion_rate: float
    depth: float


@dataclass(frozen=True)
class KeyFrame:
    """A frame that is shown in the report.

    Attributes:
        frame: its place in the replay.
        jpeg: its overlay.
        caption: one line.
    """

    frame: int
    jpeg: bytes
    caption: str


@dataclass
class Record:
    """A replay.

    Attributes:
        bag: name of the bag.
        model: name of the model.
        device: where it ran.
        classes: class names.
        stamps: nanoseconds by frame.
        timings: milliseconds by frame, by stage.
        instances: detections by frame, before tracking.
        rows: all tracks of all frames.
        warnings: and how often each came.
        key_frames: for the report.
        accuracy: numbers by name where the bag holds ground truth, all classes as one: shares
            of 1 but for the counts.
        counts: names of those that are no shares.
        headlines: those that stand large, by class: the same as on the evaluation's own page.
        camera: its name among several, "" where it is the only one.
    """

    bag: str
    model: str
    device: str
    classes: tuple[str, ...]
    stamps: list[int] = field(default_factory=list)
    timings: dict[str, list[float]] = field(default_factory=dict)
    instances: list[int] = field(default_factory=list)
    rows: list[TrackRow] = field(default_factory=list)
    warnings: Counter[FrameWarning] = field(default_factory=Counter)
    key_frames: list[KeyFrame] = field(default_factory=list)
    accuracy: dict[str, float] = field(default_factory=dict)
    counts: Collection[str] = ()
    headlines: Sequence[Tile] = ()
    camera: str = ""

    @property
    def faults(self) -> Counter[FrameWarning]:
        """The warnings of what is wrong."""
        return Counter({w: n for w, n in self.warnings.items() if w.kind not in NOTES})

    @property
    def notes(self) -> list[FrameWarning]:
        """Those that tell what was decided."""
        return [w for w in self.warnings if w.kind in NOTES]

    def add(self, stamp: int, instances: Instances, tracks: Tracks, report: Report) -> None:
        """Take in a frame; the report's warnings are counted."""
        frame = len(self.stamps)
        self.stamps.append(stamp)
        self.instances.append(len(instances))
        for stage, ms in report.timings.items():
            self.timings.setdefault(stage, []).append(ms)
        self.warnings.update(report.warnings)
        for i in range(len(tracks)):
            self.rows.append(
                TrackRow(
                    frame,
                    int(tracks.ids[i]),
                    int(tracks.class_ids[i]),
                    bool(tracks.coasted[i]),
                    float(tracks.occlusion_rates[i]),
                    float(tracks.depths[i]),
                )
            )

    @property
    def identities(self) -> Tile | None:
        """Identities through full occlusion (`tiles.identities`); None without ground truth."""
        if "occlusions" not in self.accuracy:
            return None
        names = ("occlusions", "occlusions_of_tracks", "occlusions_survived")
        return identities(*(round(self.accuracy[name]) for name in names))

    @property
    def summary(self) -> str:
        """What became of the objects, in a sentence for people who know none of the measures."""
        hidden, carried, returned = set(), set(), set()
        for row in self.rows:
            if row.coasted:
                carried.add(row.id)
            elif row.id in carried:
                returned.add(row.id)
            if not row.coasted and row.occlusion_rate >= PARTLY_HIDDEN:
                hidden.add(row.id)
        text = (
            f"{_objects(len(self.track_ids))}, {len(hidden)} of them partly hidden, "
            f"{len(returned)} carried on out of sight and seen again."
        )
        kept = self.identities
        if kept is None:
            return text
        value = "" if kept.value == "-" else f"{kept.value} "
        return f"{text} Against the ground truth: {value}{kept.label}."

    @property
    def markdown(self) -> str:
        """The replay in a few lines, for viewers: what ran, what became of it, what it costs."""
        title = f"{self.bag}, {self.camera}" if self.camera else self.bag
        ran = f"model {self.model}, {self.frames} frames, {self.duration:.1f} s of driving, "
        lines = [f"## {title}", f"{ran}{self.fps:.1f} frames a second", self.summary]
        lines += [f"- **{t.value}** {t.label} ({t.says})" for t in self.headlines]
        lines += [f"- {count} x {fault}" for fault, count in self.faults.most_common(10)]
        return "\n\n".join(lines)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.stamps)

    @property
    def track_ids(self) -> list[int]:
        """All ids in order of their first frame."""
        return list(dict.fromkeys(row.id for row in self.rows))

    @property
    def fps(self) -> float:
        """Frames a second of the pipeline's own stages, without reading, drawing and writing."""
        spent = sum(self.timings.get(TOTAL, []))
        return 1e3 * self.frames / spent if spent else 0.0

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the last."""
        return (self.stamps[-1] - self.stamps[0]) * 1e-9 if self.stamps else 0.0

    def percentiles(self) -> dict[str, dict[str, float]]:
        """p50_ms, p95_ms and p99_ms by stage."""
        percentiles = {}
        for stage, values in self.timings.items():
            p50, p95, p99 = np.percentile(values, (50, 95, 99))
            percentiles[stage] = {
                "p50_ms": round(float(p50), 3),
                "p95_ms": round(float(p95), 3),
                "p99_ms": round(float(p99), 3),
            }
        return percentiles

    def metrics(self) -> dict[str, object]:
        """What metrics.json holds."""
        return {
            "bag": self.bag,
            "model": self.model,
            "device": self.device,
            "frames": self.frames,
            "seconds": round(self.duration, 3),
            "fps": round(self.fps, 2),
            "stages": self.percentiles(),
            "instances": sum(self.instances),
            "tracks": len(self.track_ids),
            "coasted": sum(row.coasted for row in self.rows),
            "warnings": counted(self.warnings),
            "accuracy": self.accuracy or None,
        }


def _objects(count: int) -> str:
    return f"{count} object{'' if count == 1 else 's'}"
