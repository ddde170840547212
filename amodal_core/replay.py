"""A bag through the pipeline, frame by frame, into tracks, numbers, a video and a report.

Nothing is dropped for speed, and the same bag gives the same tracks.mcap byte for byte on the same
machine.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.sensors import cloud_message
from amodal_core.bags.writer import BagWriter
from amodal_core.drive.assembler import DriveFrame
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.outputs import (
    depth_output,
    instances_output,
    label_info_output,
    track_outputs,
)
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.topics import (
    DEPTH,
    DETECTIONS,
    DETECTIONS_3D,
    INSTANCES,
    LABEL_INFO,
    TRACK_POINTS,
    TRACKS,
    VISIBLE_LABELS,
)
from amodal_core.drive.writer import DriveWriter
from amodal_core.errors import InputError
from amodal_core.evaluation import results as evaluation
from amodal_core.evaluation.stream import StreamAccuracy
from amodal_core.evaluation.truth import bag_images
from amodal_core.files import write_text
from amodal_core.frame import Frame, Report, Tracks
from amodal_core.pipeline import STAGES, Pipeline, Step
from amodal_core.progress import Progress
from amodal_core.views.overlay import draw_overlay, enlarge
from amodal_core.views.panel import draw_panel, panel_height
from amodal_core.views.report.page import write_report
from amodal_core.views.report.record import TOTAL, KeyFrame, Record
from amodal_core.views.track_cloud import track_cloud
from amodal_core.views.video import VideoWriter

TRACKS_BAG = "tracks.mcap"
METRICS = "metrics.json"
VIDEO = "overlay.mp4"
REPORT = "report.html"
EVALUATION = "evaluation"
_KEY_FRAMES = 6


@dataclass
class ReplayOptions:
    """How to replay.

    Attributes:
        max_frames: stop after so many frames.
        video: draw and encode the overlay video.
        depth: write the depth images to tracks.mcap, too; they are large.
        track_points: write the tracks' points, too.
        image_topic: where a bag has several cameras.
        points_topic: where it has several LiDARs; "none" for the camera alone.
        odom_topic: where it has several odometries.
        drive: what belongs to one frame, and where the LiDAR stands.
    """

    max_frames: int | None = None
    video: bool = True
    depth: bool = False
    track_points: bool = False
    image_topic: str = ""
    points_topic: str = ""
    odom_topic: str = ""
    drive: DriveSettings = field(default_factory=DriveSettings)


def replay(
    bag: str | Path,
    out: str | Path,
    pipeline: Pipeline,
    options: ReplayOptions | None = None,
    progress: Progress | None = None,
) -> Record:
    """Replay a bag; `out` gets tracks.mcap, metrics.json, overlay.mp4 and report.html.

    A bag with ground truth is evaluated, too, into `out`/evaluation.

    Args:
        bag: a rosbag2 folder or file with a camera, its camera_info, a LiDAR and their transform;
            a model that needs the image alone answers every image, with or without a scan.
        out: a folder; results of an earlier replay in it are replaced.
        pipeline: model and tracker; it is reset first.
        options: how.
        progress: is called with (frames done, frames in all).

    Raises:
        InputError: the bag cannot be read or holds no frame, or `out` cannot be written.
    """
    options = options or ReplayOptions()
    topics = options.image_topic, options.points_topic, options.drive, options.odom_topic
    optional = not pipeline.model.inputs - {"image"}
    with (
        BagDrive(bag, *topics, lidar_optional=optional) as drive,
        _folder(Path(out)) as out,
    ):
        frames = iter(drive)
        ahead = list(islice(frames, 2))
        if not ahead:
            why = _why_no_frame(drive)
            raise InputError(f"the bag gives no frame: {why}", str(bag), "check its topics")
        expected = drive.images
        if options.max_frames is not None:
            expected = min(expected, options.max_frames)
        _warm_up(pipeline, ahead[0].frame)
        run = _Run(Path(bag).resolve().name, pipeline, options, out, expected)
        stream = islice(chain(ahead, frames), options.max_frames)
        with BagWriter(out / TRACKS_BAG, compress=True, overwrite=True) as results:
            run.announce(results)
            with run.video([item.frame for item in ahead]) as video:
                for done, item in enumerate(stream, 1):
                    run.frame(item, results, video)
                    if progress is not None:
                        progress(done, expected)
        run.record.warnings.update(drive.warnings)
    run.record.accuracy = run.accuracy()
    shutil.rmtree(out / EVALUATION, ignore_errors=True)
    if run.record.accuracy:
        run.evaluate(bag)
    if not options.video:
        (out / VIDEO).unlink(missing_ok=True)
    write_text(out / METRICS, json.dumps(run.record.metrics(), indent=2) + "\n")
    write_report(run.record, out / REPORT, VIDEO if options.video else None)
    return run.record


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """Make a folder; when what follows fails, no folder that was made here is left empty."""
    made = [p for p in (out, *out.parents) if not p.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder: {error.strerror}", str(out)) from None
    try:
        yield out
    except BaseException:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise


def _why_no_frame(drive: BagDrive) -> str:
    """What was refused most, and why most images were dropped."""
    images = f"{drive.topics.image}: dropped"
    refused = Counter(w.text for w in drive.warnings if w.kind == "refused")
    dropped = Counter(w.text for w in drive.warnings if w.text.startswith(images))
    reasons = [*refused.most_common(1), *dropped.most_common(1)]
    lines = [f"{n} x {text}" for text, n in reasons]
    clocks = [w.text for w in drive.warnings if w.kind == "clocks"]
    lines += [text.removeprefix("no image has a scan: ") for text in clocks]
    return "; ".join(lines) or "no image has a stamp"


def _warm_up(pipeline: Pipeline, frame: Frame) -> None:
    """Compile and allocate before the clock runs; leaves no trace in the results."""
    pipeline.reset()
    pipeline.run(frame)
    pipeline.reset()


class _NoVideo:
    """Stands in for the writer where no video is wanted."""

    def write(self, image: np.ndarray) -> None:
        """Nothing."""

    def __enter__(self) -> _NoVideo:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _Run:
    """A replay on its way."""

    def __init__(
        self, bag: str, pipeline: Pipeline, options: ReplayOptions, out: Path, expected: int
    ) -> None:
        self.pipeline = pipeline
        self.options = options
        self.out = out
        self.expected = max(expected, 1)
        self.classes = pipeline.model.classes
        self.record = Record(bag, pipeline.model.name, _device(pipeline), self.classes)
        self.factory = RosbagsFactory()
        self.stream = StreamAccuracy(bag)
        self.truth_classes: dict[int, str] = {}
        self._best = -1.0
        self._segment = -1

    def video(self, ahead: Sequence[Frame]) -> VideoWriter | _NoVideo:
        """The video's writer, at the rate of the drive's first two frames."""
        if not self.options.video:
            return _NoVideo()
        period = (ahead[-1].stamp - ahead[0].stamp) * 1e-9
        rate = min(max(1 / period, 1.0), 60.0) if period > 0 else 10.0
        factor = _enlargement(ahead[0].size[1])
        height, width = (n * factor for n in ahead[0].size)
        size = height + panel_height(width), width
        return VideoWriter(self.out / VIDEO, round(rate, 1), size)

    def announce(self, bag: BagWriter) -> None:
        """The topics of the nodes."""
        topics = [LABEL_INFO, INSTANCES, TRACKS, DETECTIONS, DETECTIONS_3D, VISIBLE_LABELS]
        topics += [DEPTH] * self.options.depth + [TRACK_POINTS] * self.options.track_points
        DriveWriter(bag, topics)

    def frame(self, item: DriveFrame, bag: BagWriter, video: VideoWriter | _NoVideo) -> None:
        """Run the pipeline on a frame and write what comes out."""
        if item.reset:
            self.pipeline.model.reset()
        step = self.pipeline.run(item.frame)
        report = step.report
        report.warnings[:0] = item.warnings
        report.timings[TOTAL] = sum(report.timings.get(stage, 0.0) for stage in STAGES)
        with report.time("messages"):
            self._write(bag, step, item)
        tracks = step.tracks.numpy()
        self._show(step.frame, tracks, video, report)
        self._compare(item, tracks)
        self.record.add(item.frame.stamp, step.instances, tracks, report)

    def _write(self, bag: BagWriter, step: Step, item: DriveFrame) -> None:
        stamp, classes, make = step.frame.stamp, self.classes, self.factory
        frame_id, lidar = item.frame_id, item.lidar_frame
        outputs = [instances_output(make, step.instances, stamp, frame_id, classes, lidar)]
        outputs += track_outputs(make, step.tracks, stamp, frame_id, classes, lidar)
        if not self.record.frames:
            outputs.insert(0, label_info_output(make, classes, stamp, frame_id))
        if self.options.depth and step.frame.depth is not None:
            outputs.append(depth_output(make, step.frame, frame_id))
        has_scan = step.frame.points is not None and step.frame.calibration is not None
        if self.options.track_points and has_scan:
            cloud = track_cloud(step.tracks, step.frame)
            outputs.append((TRACK_POINTS, cloud_message(make, cloud, stamp, lidar)))
        for topic, message in outputs:
            bag.write(topic.bag_name, message, stamp)

    def _show(
        self, frame: Frame, tracks: Tracks, video: VideoWriter | _NoVideo, report: Report
    ) -> None:
        """The overlay for the video, and the frame with most to see of each sixth of the drive."""
        segment = self.record.frames * _KEY_FRAMES // self.expected
        interest = float(np.minimum(tracks.occlusion_rates, 1.0 - tracks.occlusion_rates).sum())
        interest += 0.01 * len(tracks)
        chosen = segment != self._segment or interest > self._best
        if frame.image is None or not (self.options.video or chosen):
            return
        large, shown = frame.image, tracks
        factor = _enlargement(frame.image.shape[1])
        if factor > 1:
            large, shown = enlarge(frame.image, tracks, factor)
        with report.time("overlay"):
            picture = draw_overlay(large, shown, self.classes)
        if self.options.video:
            with report.time("panel"):
                panel = draw_panel(frame, tracks, picture.shape[1])
            video.write(np.vstack([picture, panel]))
        if not chosen:
            return
        if segment == self._segment:
            self.record.key_frames.pop()
        self._segment, self._best = segment, interest
        coded = cv2.imencode(".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 88))[1]
        hidden = int((tracks.occlusion_rates >= 0.1).sum())
        since = (frame.stamp - (self.record.stamps or [frame.stamp])[0]) * 1e-9
        caption = (
            f"frame {self.record.frames}, {since:.1f} s: {len(tracks)} tracks, "
            f"{hidden} partly hidden, {int(tracks.coasted.sum())} carried on unseen"
        )
        self.record.key_frames.append(KeyFrame(self.record.frames, coded.tobytes(), caption))

    def _compare(self, item: DriveFrame, tracks: Tracks) -> None:
        """Keep what accuracy is made of."""
        if item.truth is None:
            return
        self.stream.add(item.frame.stamp, item.truth, tracks)
        self.truth_classes.update(item.truth_classes)

    def accuracy(self) -> dict[str, float]:
        """Amodal and visible AP, HOTA and kept identities against the bag's ground truth."""
        values = self.stream.values()
        self.record.warnings.update(self.stream.warnings)
        return values

    def evaluate(self, bag: str | Path) -> None:
        """Write all other numbers, by class and occlusion, and the worst failures to a folder."""
        result, truth, predictions = self.stream.evaluation(self.truth_classes, self.classes)
        stamps = {i.id: i.stamp for i in truth.set.images}
        topic, drive = self.options.image_topic, self.options.drive
        truth.images = lambda ids: bag_images(Path(bag), {stamps[i]: i for i in ids}, topic, drive)
        inputs = {"gt": str(bag), "dt": str(self.out / TRACKS_BAG)}
        evaluation.write(result, self.out / EVALUATION, inputs, truth, predictions)


def _enlargement(width: int) -> int:
    """How many times larger images of this width are drawn: about as wide as KITTI's."""
    return max(1, min(4, round(1100 / width)))


def _device(pipeline: Pipeline) -> str:
    return str(getattr(pipeline.model, "device", "cpu"))
