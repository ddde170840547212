"""A bag through the pipeline, frame by frame, into tracks, numbers, a video and a report.

Nothing is dropped for speed, and the same bag gives the same tracks.mcap byte for byte on the same
machine.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.foxglove_types import register
from amodal_core.bags.sensors import cloud_message
from amodal_core.bags.writer import BagWriter
from amodal_core.drive.assembler import DriveFrame
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.cameras import bag_name, camera_names, together
from amodal_core.drive.copies import TransformCopy, sensor_outputs
from amodal_core.drive.outputs import (
    depth_output,
    instances_output,
    label_info_output,
    track_outputs,
)
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.topics import (
    ANNOTATIONS,
    COPIED_IMAGE,
    COPIED_INFO,
    COPIED_POINTS,
    DEPTH,
    DETECTIONS,
    DETECTIONS_3D,
    INSTANCES,
    LABEL_INFO,
    SCENE,
    TRACK_POINTS,
    TRACKS,
    VISIBLE_LABELS,
)
from amodal_core.drive.writer import DriveWriter
from amodal_core.errors import InputError
from amodal_core.evaluation import results as evaluation
from amodal_core.evaluation.formats import TRACKS_BAG
from amodal_core.evaluation.report import headlines
from amodal_core.evaluation.run import Evaluation
from amodal_core.evaluation.stream import COUNTS, StreamAccuracy
from amodal_core.evaluation.truth import bag_images
from amodal_core.files import out_folder, write_text
from amodal_core.frame import RUNTIME, RUNTIME_FAULT, Frame, FrameWarning, Report, Tracks
from amodal_core.pipeline import STAGES, Pipeline, Step
from amodal_core.progress import Progress
from amodal_core.views.film import Film
from amodal_core.views.foxglove import annotations_message, scene_message
from amodal_core.views.report.page import write_report
from amodal_core.views.report.record import TOTAL, Record
from amodal_core.views.rerun_file import RerunRecording, recording
from amodal_core.views.track_cloud import track_cloud
from amodal_core.warm_up import warm_up_tracker

METRICS = "metrics.json"
VIDEO = "overlay.mp4"
REPORT = "report.html"
EVALUATION = "evaluation"


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
        rerun: a recording of Rerun to write (.rrd); needs the extra `views`.
        copy: write what viewers need beside the results to tracks.mcap, too: image, camera_info,
            scan, transforms, the tracks' points, Foxglove's annotations and scene.
    """

    max_frames: int | None = None
    video: bool = True
    depth: bool = False
    track_points: bool = False
    image_topic: str = ""
    points_topic: str = ""
    odom_topic: str = ""
    drive: DriveSettings = field(default_factory=DriveSettings)
    rerun: Path | None = None
    copy: bool = False


def replay(
    bag: str | Path,
    out: str | Path,
    pipeline: Pipeline,
    options: ReplayOptions | None = None,
    progress: Progress | None = None,
) -> Record:
    """Replay one camera of a bag; `out` gets tracks.mcap, metrics.json, overlay.mp4, report.html.

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
    (record,) = replay_cameras(bag, out, {options.image_topic: pipeline}, options, progress)
    return record


def replay_cameras(
    bag: str | Path,
    out: str | Path,
    pipelines: Mapping[str, Pipeline],
    options: ReplayOptions | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Replay several cameras of a bag, as `replay` does one.

    Each has its own identities, its topics under its name in the one tracks.mcap (`camera_names`),
    and its overlay_NAME.mp4 and evaluation_NAME; metrics.json and report.html are of all.

    Args:
        bag: see `replay`.
        out: see `replay`.
        pipelines: by image topic. Where they share a model it gets the frames of one time at once.
        options: how; `image_topic` is not looked at.
        progress: see `replay`.

    Raises:
        InputError: see `replay`; a camera is named twice.
    """
    options = options or ReplayOptions()
    names = camera_names(list(pipelines))
    _check_apart(Path(bag), Path(out))
    with ExitStack() as stack:
        drives = [
            stack.enter_context(_drive(bag, topic, pipeline, options))
            for topic, pipeline in pipelines.items()
        ]
        out = stack.enter_context(out_folder(Path(out)))
        runs, streams = [], []
        for name, drive, pipeline in zip(names, drives, pipelines.values(), strict=True):
            frames = iter(drive)
            ahead = list(islice(frames, 2))
            if not ahead:
                raise _no_frame(drive, bag)
            notes = _warm_up(pipeline, ahead[0].frame)
            runs.append(_Run(drive, name, pipeline, options, out, [item.frame for item in ahead]))
            runs[-1].record.warnings.update(notes)
            streams.append(islice(chain(ahead, frames), options.max_frames))
        scene = _scene(stack, runs, options)
        expected, done = sum(run.expected for run in runs), 0
        with BagWriter(out / TRACKS_BAG, compress=True, overwrite=True) as results:
            for run in runs:
                run.announce(results)
            with ExitStack() as films:
                if options.copy:
                    transforms = films.enter_context(TransformCopy(bag, results))
                for run in runs:
                    films.enter_context(run.film)
                for batch in together(streams):
                    for _, item in batch if options.copy else ():
                        transforms.frame(item)
                    _advance([(runs[n], item) for n, item in batch], results, scene)
                    done += len(batch)
                    if progress is not None:
                        progress(done, expected)
        for run, drive in zip(runs, drives, strict=True):
            run.record.warnings.update(drive.warnings)
        kept = [name for run in runs for name in run.end()]
        if scene is not None:
            scene.summary("\n\n".join(run.record.markdown for run in runs))
    _remove_old(out, kept)
    records = [run.record for run in runs]
    metrics = [record.metrics() for record in records]
    each = metrics[0] if len(runs) == 1 else {"cameras": dict(zip(names, metrics, strict=True))}
    write_text(out / METRICS, json.dumps(each, indent=2) + "\n")
    write_report(records, out / REPORT, [run.video_name for run in runs] if options.video else None)
    return records


def _drive(bag: str | Path, topic: str, pipeline: Pipeline, options: ReplayOptions) -> BagDrive:
    return BagDrive(
        bag,
        topic,
        options.points_topic,
        options.drive,
        options.odom_topic,
        lidar_optional=not pipeline.model.inputs - {"image"},
    )


def _scene(stack: ExitStack, runs: Sequence[_Run], options: ReplayOptions) -> RerunRecording | None:
    """The recording of Rerun, where one is wanted; it ends with the stack."""
    if options.rerun is None:
        return None
    names, classes = [run.camera for run in runs], [run.classes for run in runs]
    truth = any(run.has_truth for run in runs)
    return stack.enter_context(recording(options.rerun, names, classes, accuracy=truth))


def _advance(
    batch: Sequence[tuple[_Run, DriveFrame]], results: BagWriter, scene: RerunRecording | None
) -> None:
    """Frames of one time through their cameras' pipelines; those that fit each other at once."""
    groups: dict[object, list[tuple[_Run, DriveFrame, Frame, Report]]] = {}
    for run, item in batch:
        if item.reset:
            run.pipeline.model.reset()
        report = Report()
        frame = run.pipeline.project(item.frame, report)
        alike = id(run.pipeline.model), frame.size, frame.depth is None
        groups.setdefault(alike, []).append((run, item, frame, report))
    for group in groups.values():
        frames, reports = [g[2] for g in group], [g[3] for g in group]
        instances = group[0][0].pipeline.segment_all(frames, reports)
        for (run, item, frame, report), detections in zip(group, instances, strict=True):
            tracks = run.pipeline.track(detections, frame, report)
            run.frame(item, Step(frame, detections, tracks, report), results, scene)


def _files(camera: str) -> tuple[str, str]:
    """The names of a camera's video and of its evaluation's folder."""
    return (f"overlay_{camera}.mp4", f"{EVALUATION}_{camera}") if camera else (VIDEO, EVALUATION)


def _remove_old(out: Path, kept: Collection[str]) -> None:
    """Remove videos and evaluations of the replay before, as far as this one has none."""
    cameras = [""]
    with suppress(OSError, ValueError, AttributeError):
        cameras += json.loads((out / METRICS).read_text()).get("cameras", {})
    for video, folder in map(_files, cameras):
        if video not in kept:
            (out / video).unlink(missing_ok=True)
        if folder not in kept:
            shutil.rmtree(out / folder, ignore_errors=True)


def _check_apart(bag: Path, out: Path) -> None:
    """The results are beside the bag, not in it or in its place.

    Raises:
        InputError: they would be.
    """
    if bag.resolve() in (out.resolve(), (out / TRACKS_BAG).resolve()):
        raise InputError("the results would lie in the bag itself", str(out), "name another place")


def _no_frame(drive: BagDrive, bag: str | Path) -> InputError:
    """What was refused most, else why most images were dropped; with the cure of that."""
    images = f"{drive.topics.image}: dropped"
    refused = Counter(w for w in drive.warnings if w.kind == "refused")
    dropped = Counter(w for w in drive.warnings if w.text.startswith(images))
    reasons = (refused or dropped).most_common(1)
    lines = [f"{n} x {warning.text}" for warning, n in reasons]
    clocks = [w.text for w in drive.warnings if w.kind == "clocks"]
    lines += [text.removeprefix("no image has a scan: ") for text in clocks]
    cures = [w.cure for w, _ in reasons if w.cure] or ["" if clocks else "check its topics"]
    why = "; ".join(lines) or "it has no image"
    return InputError(f"the bag gives no frame: {why}", str(bag), cures[0])


def _warm_up(pipeline: Pipeline, frame: Frame) -> list[FrameWarning]:
    """Compile and allocate before the clock runs; leaves no trace in the results.

    Returns:
        What was decided meanwhile, such as the network's runtime: later frames do not tell it.
    """
    pipeline.reset()
    report = pipeline.run(frame).report
    warm_up_tracker(pipeline.tracker)
    pipeline.reset()
    return [w for w in report.warnings if w.kind in (RUNTIME, RUNTIME_FAULT)]


class _Run:
    """A replay on its way."""

    def __init__(
        self,
        drive: BagDrive,
        camera: str,
        pipeline: Pipeline,
        options: ReplayOptions,
        out: Path,
        ahead: Sequence[Frame],
    ) -> None:
        self.bag, self.topic, self.camera = drive.bag.path, drive.topics.image, camera
        self.has_truth = bool(drive.topics.ground_truth)
        self.pipeline = pipeline
        self.options = options
        self.out = out
        self.expected = max(min(drive.images, options.max_frames or drive.images), 1)
        self.classes = pipeline.model.classes
        name = self.bag.resolve().name
        self.record = Record(
            name, pipeline.model.name, _device(pipeline), self.classes, camera=camera
        )
        self.factory = RosbagsFactory()
        self.stream = StreamAccuracy(name)
        self.truth_classes: dict[int, str] = {}
        self.video_name, self.folder = _files(camera)
        video = out / self.video_name if options.video else None
        self.film = Film(video, ahead, self.classes, self.expected)

    def announce(self, bag: BagWriter) -> None:
        """The topics of the nodes."""
        topics = [LABEL_INFO, INSTANCES, TRACKS, DETECTIONS, DETECTIONS_3D, VISIBLE_LABELS]
        topics += [DEPTH] * self.options.depth
        topics += [TRACK_POINTS] * (self.options.track_points or self.options.copy)
        if self.options.copy:
            topics += [COPIED_IMAGE, COPIED_INFO, COPIED_POINTS, ANNOTATIONS, SCENE]
            register()
        named = [replace(t, bag_name=bag_name(t, self.camera)) for t in topics]
        DriveWriter(bag, named)

    def frame(
        self, item: DriveFrame, step: Step, bag: BagWriter, scene: RerunRecording | None
    ) -> None:
        """Write what came out of a frame."""
        report = step.report
        report.warnings[:0] = item.warnings
        report.timings[TOTAL] = sum(report.timings.get(stage, 0.0) for stage in STAGES)
        with report.time("messages"):
            self._write(bag, step, item)
        tracks = step.tracks.numpy()
        self.film.show(step.frame, tracks)
        self._compare(item, tracks)
        if scene is not None:
            with report.time("rerun"):
                scene.frame(self.camera, item, step.frame, tracks, report)
        self.record.add(item.frame.stamp, step.instances, tracks, report)

    def end(self) -> list[str]:
        """Compare with the bag's ground truth, where it has one; what is left in the folder."""
        self.record.key_frames = self.film.key_frames
        self.record.timings |= self.film.timings
        self.record.accuracy = self.accuracy()
        shutil.rmtree(self.out / self.folder, ignore_errors=True)
        self.record.counts = COUNTS
        if self.record.accuracy:
            self.record.headlines = headlines(self.evaluate(self.out / self.folder))
        return [self.folder, *[self.video_name] * self.options.video]

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
        if self.options.copy:
            outputs += sensor_outputs(make, item)
            drawn = annotations_message(make, step.tracks, classes, stamp)
            outputs.append((ANNOTATIONS, drawn))
            if lidar:
                scene = scene_message(make, step.tracks, classes, stamp, lidar)
                outputs.append((SCENE, scene))
        if (self.options.track_points or self.options.copy) and has_scan:
            cloud = track_cloud(step.tracks, step.frame)
            outputs.append((TRACK_POINTS, cloud_message(make, cloud, stamp, lidar)))
        for topic, message in outputs:
            bag.write(bag_name(topic, self.camera), message, stamp)

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

    def evaluate(self, folder: Path) -> Evaluation:
        """Write all other numbers, by class and occlusion, and the worst failures to a folder."""
        result, truth, predictions = self.stream.evaluation(self.truth_classes, self.classes)
        stamps = {i.id: i.stamp for i in truth.set.images}
        drive = self.options.drive
        truth.images = lambda ids: bag_images(
            self.bag, {stamps[i]: i for i in ids}, self.topic, drive
        )
        inputs = {"gt": str(self.bag), "dt": str(self.out / TRACKS_BAG)}
        evaluation.write(result, folder, inputs, truth, predictions)
        return result


def _device(pipeline: Pipeline) -> str:
    return str(getattr(pipeline.model, "device", "cpu"))
