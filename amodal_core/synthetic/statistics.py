"""How much a run hides: occlusion rates, full occlusions that end, and what was annotated."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from amodal_core.frame import Tracks
from amodal_core.synthetic.truth import CLASSES

EDGES = (0.0, 0.05, 0.25, 0.5, 0.75, 1.0)


@dataclass
class Statistics:
    """Counts over the annotated instances of all frames.

    Attributes:
        frames: number of frames.
        instances: number of annotated instances.
        classes: instances by class.
        bins: instances by occlusion rate: 0-0.05, -0.25, -0.5, -0.75, below 1, and wholly hidden.
        tracks: number of tracks.
        reappearances: full occlusions that were followed by a frame that shows the object again.
        streets, lights: sequences by kind.
    """

    frames: int = 0
    instances: int = 0
    classes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    bins: list[int] = field(default_factory=lambda: [0] * len(EDGES))
    tracks: int = 0
    reappearances: int = 0
    streets: dict[str, int] = field(default_factory=dict)
    lights: dict[str, int] = field(default_factory=dict)
    _hidden: dict[int, bool] = field(default_factory=dict, repr=False)

    def begin(self, street: str, light: str) -> None:
        """A new sequence begins."""
        self._hidden = {}
        self.streets[street] = self.streets.get(street, 0) + 1
        self.lights[light] = self.lights.get(light, 0) + 1

    def add(self, tracks: Tracks) -> None:
        """Count a frame."""
        self.frames += 1
        self.instances += len(tracks)
        for k, rate in enumerate(tracks.occlusion_rates.tolist()):
            self.classes[CLASSES[int(tracks.class_ids[k])]] += 1
            number = int(tracks.ids[k])
            hidden = rate >= 1.0
            if number not in self._hidden:
                self.tracks += 1
            elif self._hidden[number] and not hidden:
                self.reappearances += 1
            self._hidden[number] = hidden
            place = (
                len(EDGES) - 1 if hidden else max(i for i, e in enumerate(EDGES[:-1]) if rate >= e)
            )
            self.bins[place] += 1

    def share_over(self, rate: float) -> float:
        """Share of instances hidden to at least a rate of `EDGES`."""
        return sum(self.bins[EDGES.index(rate) :]) / max(self.instances, 1)

    def merge(self, other: Statistics) -> None:
        """Add another sequence's counts."""
        self.frames += other.frames
        self.instances += other.instances
        self.tracks += other.tracks
        self.reappearances += other.reappearances
        self.bins = [a + b for a, b in zip(self.bins, other.bins, strict=True)]
        for name in ("classes", "streets", "lights"):
            mine, theirs = getattr(self, name), getattr(other, name)
            for key, value in theirs.items():
                mine[key] = mine.get(key, 0) + value

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        data = {k: v for k, v in asdict(self).items() if not k.startswith("_")}
        data["edges"] = list(EDGES)
        data["share_over_0.25"] = round(self.share_over(0.25), 4)
        data["share_over_0.5"] = round(self.share_over(0.5), 4)
        return data
