"""The faults that are injected into a live drive, what is promised, and what may be lost."""

from __future__ import annotations

import time
from typing import Any

import node_bench as drive
import numpy as np
from node_bench import SECOND

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.sensors import image_message, points_message
from amodal_core.drive.topics import CAMERA_INFO, IMAGE, POINTS, TF_STATIC
from amodal_ros.conversions import FACTORY

from .play import Fault, Moment

_ROSBAGS = RosbagsFactory()
_IMAGE, _INFO, _POINTS, _TF = (t.name for t in (IMAGE, CAMERA_INFO, POINTS, TF_STATIC))


def _without(*topics: str) -> Any:
    def inject(moment: Moment) -> None:
        for topic in topics:
            del moment.messages[topic]

    return inject


def _restamped(message: Any, stamp: int) -> Any:
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
    return message


def _zero_stamp(moment: Moment) -> None:
    _restamped(moment.messages[_POINTS][0], 0)


def _also(topic: str, make: Any) -> Any:
    """One more message, before the frame's own."""

    def inject(moment: Moment) -> None:
        moment.messages.setdefault(topic, []).insert(0, make(moment.index))

    return inject


def _stamped_1970(index: int) -> Any:
    return _restamped(drive.cloud(index), SECOND)


def _late(index: int) -> Any:
    return drive.cloud(max(0, index - 8))


def _ahead(index: int) -> Any:
    return _restamped(drive.cloud(index), drive.stamp(index) + 3600 * SECOND)


def _reordered(moment: Moment) -> None:
    moment.messages = dict(reversed(moment.messages.items()))


def _scan_after_the_next_image(moment: Moment) -> None:
    """The scan of this frame comes with the next one; that of the last when the fault is over."""
    scans = moment.messages.pop(_POINTS)
    moment.messages[_POINTS] = moment.kept.pop(_POINTS, [])
    if not moment.undo:
        nodes = moment.nodes

        def rest() -> None:
            for scan in moment.kept.pop(_POINTS, []):
                nodes.send(_POINTS, scan)

        moment.undo.append(rest)
    moment.kept[_POINTS] = scans


def _twice(moment: Moment) -> None:
    for messages in moment.messages.values():
        messages *= 2


def _flood(moment: Moment) -> None:
    moment.messages[_POINTS] *= 20


def _spoilt(topic: str, spoil: Any) -> Any:
    def inject(moment: Moment) -> None:
        spoil(moment.messages[topic][0])

    return inject


def _huge_info(message: Any) -> None:
    message.width = message.height = 65_535


def _no_focal_length(message: Any) -> None:
    message.p, message.k = np.array(message.p), np.array(message.k)  # the drive's own otherwise
    message.p[0] = message.k[0] = np.nan


def _huge_scan(message: Any) -> None:
    message.width, message.point_step = 2**32 - 1, 0


def _cut(message: Any) -> None:
    message.data = message.data[:-160]


def _encoding(message: Any) -> None:
    message.encoding = "h264"


def _points(change: Any) -> Any:
    """Change the scan's numbers."""

    def inject(moment: Moment) -> None:
        assert drive.FRAME.points is not None
        points = drive.FRAME.points.copy()
        change(points)
        old = moment.messages[_POINTS][0]
        data = np.ascontiguousarray(points, "<f4").view(np.uint8).reshape(-1)
        old.data = FACTORY.create("sensor_msgs/msg/PointCloud2", data=data).data

    return inject


def _all_nan(points: np.ndarray) -> None:
    points[:] = np.nan


def _some_wild(points: np.ndarray) -> None:
    for k, value in enumerate((np.nan, np.inf, -np.inf, 1e-40, 3e38, 0.0)):
        points[k::97] = value


def _empty_scan(moment: Moment) -> None:
    scan = moment.messages[_POINTS][0]
    scan.width = scan.row_step = 0
    scan.data = FACTORY.create("sensor_msgs/msg/PointCloud2", data=np.zeros(0, np.uint8)).data


def _no_text(moment: Moment) -> None:
    """One image and one scan more, whose frames are named by bytes that are no UTF-8."""
    stamp = drive.stamp(moment.index)
    for topic, message in (
        (IMAGE, image_message(_ROSBAGS, np.zeros((4, 4, 3), np.uint8), stamp, "strange")),
        (POINTS, points_message(_ROSBAGS, np.ones((4, 4), np.float32), stamp, "strange")),
    ):
        data = bytes(_ROSBAGS.store.serialize_cdr(message, topic.type))
        moment.messages[topic.name].insert(0, data.replace(b"strange", b"\xff\xfe\xfdange"))


def _other_camera(moment: Moment) -> None:
    info = moment.messages[_INFO][0]
    info.k, info.p = np.array(info.k), np.array(info.p)
    info.k[0] *= 0.9
    info.p[0] *= 0.9


def _half_size(moment: Moment) -> None:
    image, info = moment.messages[_IMAGE][0], moment.messages[_INFO][0]
    pixels = np.asarray(image.data, np.uint8).reshape(image.height, image.width, 3)[::2, ::2]
    image.height, image.width, image.step = *pixels.shape[:2], 3 * pixels.shape[1]
    flat = np.ascontiguousarray(pixels).reshape(-1)
    image.data = FACTORY.create("sensor_msgs/msg/Image", data=flat).data
    info.height, info.width = pixels.shape[:2]
    info.k, info.p = np.array(info.k), np.array(info.p)
    for values, places in ((info.k, (0, 2, 4, 5)), (info.p, (0, 2, 5, 6))):
        for place in places:
            values[place] /= 2


def _tf_that_is_none(index: int) -> Any:
    message = drive.tf_static()
    message.transforms[0].transform.rotation.w = float("nan")
    return message


def _tf_again(moment: Moment) -> None:
    moment.messages[_TF] = [drive.tf_static()] * 50


def _model_fails(moment: Moment) -> None:
    """The model raises for this frame, whenever it comes to it."""
    model = moment.nodes.nodes["segmentation"].model
    infer, bad = model.infer, drive.stamp(moment.index)

    def fails(frames: Any, *rest: Any) -> Any:
        if frames[0].stamp == bad:
            raise ZeroDivisionError("of all things")
        return infer(frames, *rest)

    model.infer = fails


def _paused(moment: Moment) -> None:
    time.sleep(1.5)


FAULTS = [
    Fault("none", "every frame is answered", lambda moment: None),
    Fault("the LiDAR stalls", "a frame without a scan is given up; the first with one is answered",
          _without(_POINTS), 1, ("no points",)),
    Fault("the camera stalls", "nothing is made up; the first image is answered",
          _without(_IMAGE), 1),
    Fault("camera_info stops", "the last one holds", _without(_INFO)),
    Fault("the source pauses", "nothing is lost when it goes on", _paused, once=True),
    Fault("a scan without a stamp", "refused; its frame is given up",
          _zero_stamp, 1, ("refused points", "no points")),
    Fault("one scan more, stamped in 1970", "no jump back, nothing forgotten, nothing lost",
          _also(_POINTS, _stamped_1970), once=True),
    Fault("one scan more, 0.8 s old", "no jump back, nothing lost",
          _also(_POINTS, _late), once=True),
    Fault("one scan more, an hour ahead", "nothing lost", _also(_POINTS, _ahead), once=True),
    Fault("messages of a frame in reverse order", "matched by their stamps", _reordered),
    Fault("scans that come after the next image", "waited for", _scan_after_the_next_image),
    Fault("every message twice", "every frame is answered once", _twice, 0,
          ("duplicate",)),
    Fault("every scan twenty times", "every frame is answered once", _flood),
    Fault("camera_info of 65535 x 65535", "refused before memory is given for it",
          _spoilt(_INFO, _huge_info), 1, ("refused /camera_info",)),
    Fault("camera_info that is not finite", "refused", _spoilt(_INFO, _no_focal_length), 1,
          ("refused /camera_info",)),
    Fault("a scan of 2^32 - 1 points of no bytes", "refused before memory is given for it",
          _spoilt(_POINTS, _huge_scan), 1, ("refused /points",)),
    Fault("a scan that is cut off", "refused", _spoilt(_POINTS, _cut), 1, ("refused /points",)),
    Fault("an image that is cut off", "refused", _spoilt(_IMAGE, _cut), 1, ("refused /image",)),
    Fault("an image of a foreign encoding", "refused", _spoilt(_IMAGE, _encoding), 1,
          ("refused /image",)),
    Fault("a scan of NaN alone", "an empty scan: tracks coast", _points(_all_nan)),
    Fault("NaN, infinity, 1e-40, 3e38 in a scan", "those returns are dropped", _points(_some_wild)),
    Fault("a scan without points", "an empty scan: tracks coast", _empty_scan),
    Fault("names that are no UTF-8", "dropped where they are taken in", _no_text,
          also=("refused image", "refused points")),
    Fault("another calibration", "taken over with its frame", _other_camera),
    Fault("another resolution", "taken over with its frame", _half_size),
    Fault("a transform that is none", "refused; the one before holds",
          _also(_TF, _tf_that_is_none), 0, ("refused /tf_static",)),
    Fault("/tf_static fifty times a frame", "nothing grows, nothing lost", _tf_again),
    Fault("the model raises an exception", "its frame is lost, the node goes on", _model_fails, 1,
          raises=True),
]  # fmt: skip
