"""What a replay was: numbers by frame and by track, gathered while it runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from amodal_core.frame import NOTES, FrameWarning, Instances, Report, Tracks, counted

TOTAL = "total"


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
        instances: count by frame.
        rows: all tracks of all frames.
        warnings: and how often each came.
        key_frames: for the report.
        accuracy: numbers by name where the bag holds ground truth.
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
    def identities(self) -> tuple[str, str] | None:
        """Identities through full occlusion: a count and what it counts; None without truth.

        A share alone would hide of how few it is, and that an object that was never tracked before
        could keep nothing.
        """
        if "occlusions" not in self.accuracy:
            return None
        total, tracked, survived = (
            round(self.accuracy[name])
            for name in ("occlusions", "occlusions_of_tracks", "occlusions_survived")
        )
        if not total:
            return "-", "identities kept: no object was wholly hidden and came back"
        untracked = f"{total - tracked} full occlusions were of objects not tracked before"
        if not tracked:
            return "-", f"identities kept: all {untracked}"
        label = "identities kept through full occlusion"
        return f"{survived} of {tracked}", f"{label}; {untracked}" if total > tracked else label

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
