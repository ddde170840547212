"""A replay as a recording of Rerun (rerun.io): image, masks, cloud, boxes, tracks and numbers.

Entities, of which each camera has its own under `CAMERA` (`camera` where there is one):

- `world/lidar`: where the LiDAR stands in the fixed frame, where the drive tells; `.../scan`;
- `world/lidar/CAMERA`: the pinhole camera in the LiDAR's frame, `.../image` and on it `visible`,
  `amodal` (labels are track ids) and `boxes`;
- `world/lidar/tracks/CAMERA`: `points` on each track and 3D `boxes`; `world/trails/CAMERA`;
- `tracks/CAMERA`: each track's hidden share (percent) and distance (metres) over time;
- `numbers/CAMERA`: objects, milliseconds, and with ground truth the masks' IoU (percent);
- `events/CAMERA`: who comes, vanishes behind whom, and is seen again; `summary`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from amodal_core.drive.assembler import DriveFrame
from amodal_core.errors import InputError
from amodal_core.extras import extra
from amodal_core.files import atomic
from amodal_core.frame import Frame, Report, Tracks
from amodal_core.geometry.object_points import points_of_objects
from amodal_core.views.labels import name_of, track_labels
from amodal_core.views.palette import track_colour
from amodal_core.views.report.record import PARTLY_HIDDEN

RECORDING = "replay.rrd"
_SCAN_POINTS = 30_000  # of a scan that are kept, evenly; those on tracks are all kept
_TRAIL = 50  # frames that a trail reaches back
_JPEG = 92  # quality
_GREY = (112, 122, 138)
# Masks' class ids are 16 bits; 0 is the background.
_LABELS = 65_535


class RerunRecording:
    """Writes frames into a recording; keeps of a drive what the next frame needs.

    Args:
        rerun: the module.
        stream: its open `RecordingStream`.
        cameras: names, "" for the only one.
        classes: names that class ids index into, by camera.
    """

    def __init__(
        self, rerun: Any, stream: Any, cameras: Sequence[str], classes: Sequence[Sequence[str]]
    ) -> None:
        self._rr, self._stream = rerun, stream
        self._streams = {
            name: _Camera(rerun, stream, name or "camera", names)
            for name, names in zip(cameras, classes, strict=True)
        }
        stream.log("world", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)

    def frame(
        self, camera: str, item: DriveFrame, frame: Frame, tracks: Tracks, report: Report
    ) -> None:
        """Log one frame.

        Args:
            camera: one of the cameras.
            item: as it was read: pose and truth.
            frame: with whatever is there of image, points and calibration.
            tracks: of the frame.
            report: its timings.
        """
        self._streams[camera].frame(item, frame, tracks.numpy(), report)

    def summary(self, text: str) -> None:
        """What became of the drive, Markdown."""
        document = self._rr.TextDocument(text, media_type="text/markdown")
        self._stream.log("summary", document, static=True)


class _Camera:
    """One camera's tracks in a recording."""

    def __init__(self, rerun: Any, stream: Any, name: str, classes: Sequence[str]) -> None:
        self._rr, self._log, self._set_time = rerun, stream.log, stream.set_time
        self._name, self._classes = name, classes
        self._place = f"world/lidar/{name}"
        self._count = 0
        self._styled: set[int] = set()
        self._unseen: dict[int, bool] = {}  # by id, of the frame before
        self._trails: dict[int, deque[np.ndarray]] = {}
        for path, label in (("tracks", "tracks"), ("hidden", "partly hidden"), ("unseen", "")):
            style = rerun.SeriesLines(names=label or "carried unseen")
            stream.log(f"numbers/{name}/objects/{path}", style, static=True)

    def frame(self, item: DriveFrame, frame: Frame, tracks: Tracks, report: Report) -> None:
        self._set_time("frame", sequence=self._count)
        self._set_time("time", timestamp=np.datetime64(frame.stamp, "ns"))
        self._count += 1
        if item.reset:
            self._unseen, self._trails = {}, {}
        labels = track_labels(tracks, self._classes)
        names = [
            f"{i} {name_of(self._classes, k)}"
            for i, k in zip(tracks.ids.tolist(), np.asarray(tracks.class_ids).tolist(), strict=True)
        ]
        colours = np.array([track_colour(int(i)) for i in tracks.ids], np.uint8).reshape(-1, 3)
        self._sensors(item, frame)
        self._masks(tracks, labels, colours)
        self._cloud(frame, tracks, colours)
        self._boxes(item, tracks, names, colours)
        self._over_time(tracks, labels, names, colours)
        self._numbers(item, tracks, report)

    def _sensors(self, item: DriveFrame, frame: Frame) -> None:
        rr, calibration = self._rr, frame.calibration
        pose = item.world_from_lidar
        if pose is not None:
            self._log("world/lidar", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        if calibration is not None:
            place = np.linalg.inv(calibration.camera_from_lidar)
            self._log(
                self._place,
                rr.Transform3D(translation=place[:3, 3], mat3x3=place[:3, :3]),
                rr.Pinhole(
                    # Integer pixels are centres here, corners there.
                    image_from_camera=calibration.K + _HALF_PIXEL,
                    resolution=(calibration.width, calibration.height),
                    camera_xyz=rr.ViewCoordinates.RDF,
                    image_plane_distance=2.0,
                ),
            )
        if frame.image is not None:
            done, jpeg = cv2.imencode(
                ".jpg", frame.image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, _JPEG)
            )
            assert done
            image = rr.EncodedImage(contents=jpeg.tobytes(), media_type="image/jpeg")
            self._log(f"{self._place}/image", image)

    def _masks(self, tracks: Tracks, labels: list[str], colours: np.ndarray) -> None:
        """Masks, whose pixels say all when they are pointed at, and boxes with identities."""
        rr = self._rr
        context = [
            rr.AnnotationInfo(id=label_of(i), label=label, color=tuple(colour.tolist()))
            for i, label, colour in zip(tracks.ids, labels, colours, strict=True)
        ]
        background = rr.AnnotationInfo(id=0, label="background", color=(0, 0, 0, 0))
        self._log(self._place, rr.AnnotationContext([background, *context]))
        for path, image in label_images(tracks).items():
            opacity = 0.45 if path == "visible" else 0.3
            self._log(f"{self._place}/{path}", rr.SegmentationImage(image, opacity=opacity))
        boxes = rr.Boxes2D(
            array=np.asarray(tracks.amodal_boxes, np.float32),
            array_format=rr.Box2DFormat.XYXY,
            # Names are wrapped at the box's width; they stand in the scene and in the masks.
            labels=[str(i) for i in tracks.ids.tolist()],
            colors=colours,
        )
        self._log(f"{self._place}/boxes", boxes)

    def _cloud(self, frame: Frame, tracks: Tracks, colours: np.ndarray) -> None:
        rr = self._rr
        if frame.points is None:
            return
        step = -(-len(frame.points) // _SCAN_POINTS) or 1
        scan = rr.Points3D(frame.points[::step, :3], colors=_GREY, radii=rr.Radius.ui_points(1))
        self._log("world/lidar/scan", scan)
        if frame.calibration is None:
            return
        points, owners = points_of_objects(tracks, frame)
        on_tracks = rr.Points3D(points[:, :3], colors=colours[owners], radii=rr.Radius.ui_points(2))
        self._log(f"world/lidar/tracks/{self._name}/points", on_tracks)

    def _boxes(
        self, item: DriveFrame, tracks: Tracks, names: list[str], colours: np.ndarray
    ) -> None:
        rr = self._rr
        boxes = np.full((len(tracks), 7), np.nan)
        if tracks.boxes3d is not None:
            boxes = np.asarray(tracks.boxes3d, np.float64)
        boxed = np.flatnonzero(np.isfinite(boxes).all(axis=1))
        opacity = np.where(np.asarray(tracks.coasted)[boxed], 110, 255)[:, None].astype(np.uint8)
        half = np.zeros((len(boxed), 4))
        half[:, 2], half[:, 3] = np.sin(boxes[boxed, 6] / 2), np.cos(boxes[boxed, 6] / 2)
        shown = rr.Boxes3D(
            centers=boxes[boxed, :3],
            half_sizes=boxes[boxed, 3:6] / 2,
            quaternions=half,
            colors=np.hstack([colours[boxed], opacity]),
            labels=[names[i] for i in boxed],
        )
        self._log(f"world/lidar/tracks/{self._name}/boxes", shown)
        pose = np.eye(4) if item.world_from_lidar is None else item.world_from_lidar
        alive = {int(i) for i in tracks.ids}
        self._trails = {i: trail for i, trail in self._trails.items() if i in alive}
        for i in boxed:
            trail = self._trails.setdefault(int(tracks.ids[i]), deque(maxlen=_TRAIL))
            trail.append(pose[:3, :3] @ boxes[i, :3] + pose[:3, 3])
        lines = {i: np.array(trail) for i, trail in self._trails.items() if len(trail) > 1}
        strips = rr.LineStrips3D(
            list(lines.values()), colors=[track_colour(i) for i in lines], radii=0.05
        )
        self._log(f"world/trails/{self._name}", strips)

    def _over_time(
        self, tracks: Tracks, labels: list[str], names: list[str], colours: np.ndarray
    ) -> None:
        rr, at = self._rr, f"tracks/{self._name}"
        now: dict[int, bool] = {}
        for i, label in enumerate(labels):
            track, unseen = int(tracks.ids[i]), bool(tracks.coasted[i])
            if track not in self._styled:
                self._styled.add(track)
                style = rr.SeriesLines(colors=colours[i], names=names[i])
                for path in ("hidden", "distance"):
                    self._log(f"{at}/{path}/{track}", style, static=True)
            hidden = 100.0 if unseen else 100.0 * float(tracks.occlusion_rates[i])
            self._log(f"{at}/hidden/{track}", rr.Scalars(hidden))
            if tracks.depths[i] > 0:
                self._log(f"{at}/distance/{track}", rr.Scalars(float(tracks.depths[i])))
            before = self._unseen.get(track)
            if before is not None and before != unseen:
                self._event(label if unseen else f"{label}: seen again", colours[i])
            elif before is None:
                self._event(f"{label}: new", colours[i])
            now[track] = unseen
        for track in self._unseen.keys() - now.keys():
            self._event(f"{track}: ended", np.array(track_colour(track), np.uint8))
        self._unseen = now

    def _event(self, text: str, colour: np.ndarray) -> None:
        line = self._rr.TextLog(text, level="INFO", color=colour)
        self._log(f"events/{self._name}", line)

    def _numbers(self, item: DriveFrame, tracks: Tracks, report: Report) -> None:
        rr, at = self._rr, f"numbers/{self._name}"
        seen = ~np.asarray(tracks.coasted)
        hidden = int((seen & (np.asarray(tracks.occlusion_rates) >= PARTLY_HIDDEN)).sum())
        self._log(f"{at}/objects/tracks", rr.Scalars(len(tracks)))
        self._log(f"{at}/objects/hidden", rr.Scalars(hidden))
        self._log(f"{at}/objects/unseen", rr.Scalars(int((~seen).sum())))
        for stage, spent in report.timings.items():
            if "." not in stage:  # parts of a model are left out
                self._log(f"{at}/milliseconds/{stage}", rr.Scalars(spent))
        if item.truth is not None:
            for kind, value in overlaps(item.truth, tracks).items():
                self._log(f"{at}/accuracy/{kind}", rr.Scalars(value))


# K of a camera whose pixels are counted from their corners, less that of one counted from centres.
_HALF_PIXEL = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def label_of(track_id: int) -> int:
    """The label of a track in `label_images`."""
    return int(track_id) % _LABELS + 1


def label_images(tracks: Tracks) -> dict[str, np.ndarray]:
    """`visible` and `amodal`: (H, W) uint16 of `label_of` each track, 0 where there is none.

    Where visible masks meet, the nearer one wins; where amodal masks do, the one behind, so that
    the two images together show both the hider and the hidden.

    Args:
        tracks: on the host.
    """
    depths = np.asarray(tracks.depths)
    near_last = np.argsort(np.where(depths > 0, depths, np.inf), kind="stable")[::-1]
    images = {}
    for name, masks, order in (
        ("visible", tracks.visible.rle(), near_last),
        ("amodal", tracks.amodal.rle(), near_last[::-1]),
    ):
        images[name] = image = np.zeros(tracks.size, np.uint16)
        crops, offsets = masks.crops()
        for i in order:
            (x, y), (height, width) = offsets[i], crops[i].shape
            image[y : y + height, x : x + width][crops[i]] = label_of(tracks.ids[i])
    return images


def overlaps(truth: Tracks, tracks: Tracks) -> dict[str, float]:
    """Mean IoU in percent of each true mask with the best track's, by kind of mask.

    Empty true masks and ignored objects are left out; a kind without any has no entry.
    """
    values = {}
    host = truth.numpy()
    counted = np.ones(len(host), bool) if host.ignore is None else ~np.asarray(host.ignore)
    for kind in ("amodal", "visible"):
        masks = getattr(host, kind).rle()
        chosen = np.flatnonzero(counted & (masks.areas() > 0))
        if len(chosen):
            iou = masks[chosen].iou(getattr(tracks, kind).rle())
            values[kind] = 100.0 * float(iou.max(axis=1, initial=0.0).mean())
    return values


def layout(blueprint: Any, cameras: Sequence[str], *, accuracy: bool) -> Any:
    """What the viewer opens with: images and the scene above, tracks and numbers below.

    Args:
        blueprint: the module `rerun.blueprint`.
        cameras: names, "" for the only one.
        accuracy: there is ground truth.
    """
    images, tabs = [], []
    for camera in cameras:
        name = camera or "camera"
        place = f"world/lidar/{name}"
        images.append(
            blueprint.Spatial2DView(
                name=name, origin=place, contents=[f"{place}/**", f"- {place}/amodal"]
            )
        )
        images.append(
            blueprint.Spatial2DView(
                name=f"{name}, hidden parts too",
                origin=place,
                contents=[f"{place}/image", f"{place}/amodal"],
            )
        )
        suffix = f" ({camera})" if camera else ""
        series = [
            ("hidden, %", f"tracks/{name}/hidden"),
            ("distance, m", f"tracks/{name}/distance"),
            ("objects", f"numbers/{name}/objects"),
            ("milliseconds", f"numbers/{name}/milliseconds"),
            *([("IoU, %", f"numbers/{name}/accuracy")] if accuracy else []),
        ]
        tabs += [blueprint.TimeSeriesView(name=t + suffix, origin=at) for t, at in series]
        tabs.append(blueprint.TextLogView(name="events" + suffix, origin=f"events/{name}"))
    scene: dict[str, Any] = {"name": "scene", "origin": "world/lidar", "contents": "world/**"}
    eye = getattr(blueprint, "EyeControls3D", None)
    if eye is not None and "position" in signature(eye).parameters:
        # Newer viewers begin behind the vehicle, older ones where they like.
        scene["eye_controls"] = eye(
            position=(-12.0, 0.0, 9.0), look_target=(14.0, 0.0, 0.0), eye_up=(0.0, 0.0, 1.0)
        )
    return blueprint.Blueprint(
        blueprint.Vertical(
            blueprint.Horizontal(
                blueprint.Vertical(*images),
                blueprint.Spatial3DView(**scene),
                column_shares=[5, 4],
            ),
            blueprint.Horizontal(
                blueprint.Tabs(*tabs, active_tab=0),
                blueprint.TextDocumentView(name="summary", origin="summary"),
                column_shares=[3, 1],
            ),
            row_shares=[3, 1],
        ),
        blueprint.SelectionPanel(state="collapsed"),
        blueprint.TimePanel(state="collapsed"),
        collapse_panels=True,
    )


def _batches(rerun: Any) -> dict[str, Any]:
    """Rows of 32 frames to a chunk of the file; older versions of Rerun have no such setting here.

    Of each chunk Rerun keeps kilobytes in memory, for the index at the end of the file, and it
    makes one of each entity every 0.2 s. Rows that wait for a chunk are heavier still.
    """
    kind = getattr(rerun, "ChunkBatcherConfig", None)
    return {} if kind is None else {"batcher_config": kind(flush_tick=5.0, flush_num_rows=32)}


@contextmanager
def recording(
    path: str | Path,
    cameras: Sequence[str],
    classes: Sequence[Sequence[str]],
    *,
    accuracy: bool = False,
) -> Iterator[RerunRecording]:
    """A recording that is at `path` when the block has ended, and not before.

    Args:
        path: the .rrd file; it is replaced.
        cameras: names, "" for the only one.
        classes: names that class ids index into, by camera.
        accuracy: the drive has ground truth.

    Raises:
        InputError: rerun-sdk is not installed, or the place cannot be written.
    """
    with extra("views", "--rerun"):
        import rerun
        import rerun.blueprint as rrb
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            part.touch()  # who cannot write there says so now, and not Rerun at the end
            # Whatever RERUN=off says in the environment: a file is asked for.
            stream = rerun.RecordingStream("amodal", default_enabled=True, **_batches(rerun))
            stream.save(str(part), default_blueprint=layout(rrb, cameras, accuracy=accuracy))
            try:
                yield RerunRecording(rerun, stream, cameras, classes)
            finally:
                stream.disconnect()  # waits until all is in the file
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", str(path)) from error


def check_viewer() -> None:
    """Whether the viewer can open a window.

    Raises:
        InputError: rerun-sdk is not installed, or this machine has no display.
    """
    with extra("views", "--view"):
        import rerun  # noqa: F401
    shown = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if sys.platform.startswith("linux") and not shown:
        cure = "write a file with --rerun, and open it where there is one: rerun FILE.rrd"
        raise InputError("there is no display for a window", "--view", cure)


def view(path: str | Path) -> None:
    """Open a recording in Rerun's viewer, which goes on after this process."""
    command = [sys.executable, "-m", "rerun", str(path)]
    subprocess.Popen(command, start_new_session=True)
