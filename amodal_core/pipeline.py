"""Frame to Tracks: projection, model, tracking; the same for a bag, a data set and the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from amodal_core.frame import Frame, Instances, Report, Tracks
from amodal_core.geometry.lifting import lift
from amodal_core.geometry.projection import depth_image
from amodal_core.models.base import Model
from amodal_core.progress import announce_compiling
from amodal_core.tracking import CoastingTracker, Tracker

PROJECTION = "depth_projection"
SEGMENTATION = "segmentation"
TRACKING = "tracking"
STAGES = (PROJECTION, SEGMENTATION, TRACKING)


@dataclass(eq=False)
class Step:
    """What became of one frame.

    Attributes:
        frame: the frame with its depth image.
        instances: what the model found.
        tracks: the same with identities, and the objects carried through occlusion.
        report: milliseconds by stage, and warnings.
    """

    frame: Frame
    instances: Instances
    tracks: Tracks
    report: Report


class Pipeline:
    """The stages in their order; each may be called alone, as the nodes do.

    Args:
        model: finds instances.
        tracker: gives them identities.
    """

    def __init__(self, model: Model, tracker: CoastingTracker | None = None) -> None:
        announce_compiling()
        self.model = model
        self.tracker: CoastingTracker = tracker or Tracker()

    def step(self, frame: Frame) -> tuple[Tracks, Report]:
        """The tracks of the stream's next frame, and how it went."""
        result = self.run(frame)
        return result.tracks, result.report

    def run(self, frame: Frame) -> Step:
        """Like `step`, with what lies between."""
        report = Report()
        frame = self.project(frame, report)
        instances = self.segment(frame, report)
        return Step(frame, instances, self.track(instances, frame, report), report)

    @staticmethod
    def project(frame: Frame, report: Report) -> Frame:
        """The frame with the depth image of its points, where it has none of its own."""
        if frame.depth is not None or frame.points is None or frame.calibration is None:
            return frame
        with report.time(PROJECTION):
            depth = depth_image(frame.points, frame.calibration)
            assert isinstance(depth, np.ndarray)
            return replace(frame, depth=depth)

    def segment(self, frame: Frame, report: Report) -> Instances:
        """The model's instances, with 3D boxes where the frame has a scan.

        None, with a warning, where a part is absent that the model needs.
        """
        return self.segment_all([frame], [report])[0]

    def segment_all(self, frames: Sequence[Frame], reports: Sequence[Report]) -> list[Instances]:
        """`segment` of frames of several cameras, which the model gets at once."""
        results: dict[int, Instances] = {}
        complete = []
        for n, frame in enumerate(frames):
            absent = sorted(name for name in self.model.inputs if getattr(frame, name) is None)
            if absent:
                results[n] = Instances.empty(frame.size)
                needs = f"{self.model.name} needs {', '.join(absent)}: frame is empty"
                reports[n].warn("missing input", needs)
            else:
                complete.append(n)
        if not complete:
            return list(results.values())
        joint = Report()
        with joint.time(SEGMENTATION):
            instances = self.model.infer([frames[n] for n in complete], joint)
            for n, detections in zip(complete, instances, strict=True):
                results[n] = lift(detections, frames[n], self.model.classes, joint)
        reports[complete[0]].warnings += joint.warnings
        for n in complete:
            for stage, ms in joint.timings.items():
                reports[n].timings[stage] = reports[n].timings.get(stage, 0.0) + ms / len(complete)
        return [results[n] for n in range(len(frames))]

    def track(self, instances: Instances, frame: Frame, report: Report) -> Tracks:
        """The tracker's step."""
        with report.time(TRACKING):
            return self.tracker.step(instances, frame.stamp, frame, report)

    def reset(self) -> None:
        """Forget the stream: its video memory and its tracks."""
        self.model.reset()
        self.tracker.reset()
