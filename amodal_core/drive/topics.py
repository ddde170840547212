"""Every topic of a drive and of the pipeline, once: name, type, quality of service, name in bags.

Nodes, launch arguments, writers of bags and the command line read them here.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amodal_core.errors import InputError

if TYPE_CHECKING:
    # Launch files import this module: it loads nothing else.
    from amodal_core.bags.reader import BagReader


NAMESPACE = "amodal"  # of the nodes and of their topics, unless the launch is given another


@dataclass(frozen=True)
class Topic:
    """A topic that is read or written.

    Attributes:
        name: relative to the node's namespace unless it begins with a slash; remapped in launch.
        type: package/msg/Name.
        qos: name of a profile in `amodal_ros.qos`.
        description: what passes there.
        required: a node cannot work without it; its silence is an error in the diagnostics.
        bag_name: its name in bags that are written here, on a car that is named like KITTI's and
            under the default namespace; the launch arguments' default.
    """

    name: str
    type: str
    qos: str
    description: str
    required: bool = True
    bag_name: str = ""

    def __post_init__(self) -> None:
        if not self.bag_name:
            absolute = self.name if self.name.startswith("/") else f"/{NAMESPACE}/{self.name}"
            object.__setattr__(self, "bag_name", absolute)


ARRAY_TYPE = "amodal_msgs/msg/AmodalInstanceArray"
_TF_TYPE = "tf2_msgs/msg/TFMessage"
_CAMERA = "/kitti/camera_color_left"

# Sensors.
IMAGE = Topic(
    "image",
    "sensor_msgs/msg/Image",
    "sensor",
    "Camera image, raw or rectified",
    bag_name=f"{_CAMERA}/image_raw",
)
CAMERA_INFO = Topic(
    "camera_info",
    "sensor_msgs/msg/CameraInfo",
    "sensor",
    "The calibration of raw and rectified image",
    bag_name=f"{_CAMERA}/camera_info",
)
POINTS = Topic(
    "points",
    "sensor_msgs/msg/PointCloud2",
    "sensor",
    "LiDAR scan: x, y, z and intensity",
    bag_name="/kitti/velo/pointcloud",
)
COMPRESSED = Topic(
    "image/compressed",
    "sensor_msgs/msg/CompressedImage",
    "sensor",
    "The image as JPEG or PNG; read where no other is published",
    required=False,
    bag_name=f"{_CAMERA}/image_raw/compressed",
)
TF_STATIC = Topic("/tf_static", _TF_TYPE, "latched_tf", "Where the LiDAR stands", required=False)
TF = Topic("/tf", _TF_TYPE, "tf", "Where what moves stands", required=False)
ODOM = Topic(
    "odom",
    "nav_msgs/msg/Odometry",
    "sensor",
    "How the vehicle moves: scans are moved to the image's time",
    required=False,
    bag_name="/odom",
)

# Results.
DEPTH = Topic(
    "depth/image",
    "sensor_msgs/msg/Image",
    "reliable",
    "LiDAR depth in metres (32FC1) with the image's stamp and frame, 0 where no return falls",
)
INSTANCES = Topic(
    "instances",
    ARRAY_TYPE,
    "reliable",
    "Objects of one image: visible and amodal masks, not tracked",
)
TRACKS = Topic("tracks", ARRAY_TYPE, "reliable", "Objects with identities, hidden ones included")
DETECTIONS = Topic(
    "detections",
    "vision_msgs/msg/Detection2DArray",
    "reliable",
    "The tracks seen in this frame as amodal boxes; the id is the track's",
)
DETECTIONS_3D = Topic(
    "detections_3d",
    "vision_msgs/msg/Detection3DArray",
    "reliable",
    "Those of them that have a 3D box, in the LiDAR's frame",
)
VISIBLE_LABELS = Topic(
    "visible_labels",
    "sensor_msgs/msg/Image",
    "reliable",
    "Class of the visible object in each pixel (mono16), 0 where there is none",
)
LABEL_INFO = Topic(
    "label_info", "vision_msgs/msg/LabelInfo", "latched", "Names of the labels in visible_labels"
)
OVERLAY = Topic("overlay", "sensor_msgs/msg/Image", "reliable", "The image with masks and ids")
MARKERS = Topic(
    "markers", "visualization_msgs/msg/MarkerArray", "reliable", "3D boxes, ids and distances"
)
TRACK_POINTS = Topic(
    "tracks/points",
    "sensor_msgs/msg/PointCloud2",
    "reliable",
    "The scan's points on the tracks, in the LiDAR's frame with the tracks' stamp: x, y, z, rgb "
    "(the overlay's colours) and track_id",
)
GROUND_TRUTH = Topic(
    "ground_truth",
    ARRAY_TYPE,
    "reliable",
    "Truth of the bag",
    required=False,
    bag_name="/ground_truth",
)

# What a recording of results holds beside them for viewers (`amodal replay --copy`).
COPIED_IMAGE = Topic(
    "image/compressed",
    "sensor_msgs/msg/CompressedImage",
    "reliable",
    "The image as the model had it: rectified, as JPEG",
)
COPIED_INFO = Topic(
    "camera_info", "sensor_msgs/msg/CameraInfo", "reliable", "Of that image, without distortion"
)
COPIED_POINTS = Topic(
    "points",
    "sensor_msgs/msg/PointCloud2",
    "reliable",
    "The scan as the model had it: at the image's time where the motion is known",
)
ANNOTATIONS = Topic(
    "annotations",
    "foxglove_msgs/msg/ImageAnnotations",
    "reliable",
    "Foxglove: masks' outlines and labels on the image",
)
SCENE = Topic(
    "scene", "foxglove_msgs/msg/SceneUpdate", "reliable", "Foxglove: 3D boxes with labels"
)

# What runs beside the pipeline.
DIAGNOSTICS = Topic(
    "/diagnostics",
    "diagnostic_msgs/msg/DiagnosticArray",
    "reliable",
    "State of the node: rates, input stamps, milliseconds, drops and their reasons",
)
CLOCK = Topic("/clock", "rosgraph_msgs/msg/Clock", "clock", "The bag's time")

# What the image transport `compressed` appends to a topic's name.
COMPRESSED_SUFFIX = "/compressed"

# Frames of the drives that are written here.
CAMERA_FRAME = "camera_color_left"
LIDAR_FRAME = "velo_link"
BASE_FRAME = "base_link"
WORLD_FRAME = "world"

_QOS = "record it again; a recorder hears nothing of a publisher of another QoS"
# What LiDARs send that is not read, by the end of its type, and what helps.
_OTHER_CLOUDS = {
    "LaserScan": "a single layer makes no depth image; record a LiDAR's PointCloud2",
    "PointCloud": "convert it to PointCloud2",
    "CustomMsg": "have livox_ros_driver2 send PointCloud2 (xfer_format: 0)",
    "VelodyneScan": "run velodyne_pointcloud on it and record its PointCloud2",
    "PacketMsg": "run the LiDAR's driver on it and record its PointCloud2",
    "UdpFrame": "run the LiDAR's driver on it and record its PointCloud2",
}
# Names of topics whose images are no camera's.
_NO_CAMERA = re.compile(r"(?:^|[/_])(?:depth|disparity|labels?|masks?|confidence)(?:[/_]|$)", re.I)
# Of the images that image_proc and drivers publish of one camera, the one to take.
_ONE_OF = ("image_rect_color", "image_color", "image_raw", "image_rect", "image", "image_mono")

NO_LIDAR = "none"  # in place of a point cloud topic: the camera alone


@dataclass(frozen=True)
class DriveTopics:
    """Which topics of a bag to use.

    Attributes:
        image: sensor_msgs/Image or CompressedImage, colour or grey.
        camera_info: the image's sensor_msgs/CameraInfo.
        points: sensor_msgs/PointCloud2, or "" for the camera alone; camera_info may be "" then.
        ground_truth: amodal_msgs/AmodalInstanceArray, or "" where the bag holds none.
        odometry: nav_msgs/Odometry, or "" where the bag holds none, or several to choose from.
    """

    image: str
    camera_info: str
    points: str
    ground_truth: str = ""
    odometry: str = ""

    @property
    def roles(self) -> dict[str, str]:
        """The topic that each one of the bag's stands for, by its name in the bag."""
        roles = {
            self.image: IMAGE.name,
            self.camera_info: CAMERA_INFO.name,
            self.points: POINTS.name,
            self.ground_truth: GROUND_TRUTH.name,
            self.odometry: ODOM.name,
        }
        return {name: role for name, role in roles.items() if name}


def find_topics(
    bag: BagReader,
    image: str = "",
    points: str = "",
    odometry: str = "",
    *,
    lidar_optional: bool = False,
    info_optional: bool = False,
) -> DriveTopics:
    """Choose a bag's topics by their types; names are needed only where there are several.

    Args:
        bag: the bag.
        image: the image topic, "" to find it.
        points: the point cloud topic, "" to find it; `NO_LIDAR` for the camera alone.
        odometry: the odometry topic, "" to find it: /odom, or the only one.
        lidar_optional: a bag without point clouds, or without camera_info then, will do.
        info_optional: the calibration comes from elsewhere: a bag without camera_info will do.

    Raises:
        InputError: a topic is missing, has no messages, or there are several to choose from.
    """
    types = {name: t.type for name, t in sorted(bag.topics.items()) if t.count}
    where = str(bag.path)

    def of_type(topic: Topic) -> list[str]:
        return [name for name, kind in types.items() if kind == topic.type]

    infos, images = of_type(CAMERA_INFO), _one_a_camera([*of_type(IMAGE), *of_type(COMPRESSED)])
    cameras = cameras_in(bag)
    if image and image not in types and types.get(image + COMPRESSED_SUFFIX) == COMPRESSED.type:
        image += COMPRESSED_SUFFIX
    clouds = of_type(POINTS)
    if points == NO_LIDAR and not lidar_optional:
        raise InputError("the model needs a LiDAR", f"topic {points}", "choose another model")
    camera_only = points == NO_LIDAR or (lidar_optional and not points and not clouds)
    info_optional = info_optional or camera_only
    if images and not infos and not info_optional:
        images_listed = ", ".join(images)
        raise InputError(
            f"no {CAMERA_INFO.type} for {images_listed}",
            where,
            "record camera_info, too, or give a calibration file",
        )
    chosen = _pick(bag, IMAGE, "image", image, cameras)
    return DriveTopics(
        image=chosen,
        camera_info=_info_of(bag, chosen, images, infos, optional=info_optional),
        points="" if camera_only else _pick(bag, POINTS, "points", points, clouds),
        ground_truth=truth_topic(bag, chosen),
        odometry=_odometry(bag, odometry, of_type(ODOM)),
    )


def truth_topic(bag: BagReader, image: str = "") -> str:
    """The topic of a bag's ground truth, "" where it has none.

    Args:
        bag: the bag.
        image: of several cameras' truths, that of the name nearest to this topic's.
    """
    names = sorted(n for n, t in bag.topics.items() if t.count and t.type == GROUND_TRUTH.type)
    names = [n for n in names if n.rpartition("/")[2] == GROUND_TRUTH.name]
    return max(names, key=lambda n: len(os.path.commonpath([n, image or "/"])), default="")


def cameras_in(bag: BagReader) -> list[str]:
    """The image topics of a bag's cameras, one of each, by name.

    Depth, label and overlay images rarely have a camera_info beside them, cameras nearly always.
    """
    types = {name: t.type for name, t in sorted(bag.topics.items()) if t.count}
    images = [name for name, kind in types.items() if kind in (IMAGE.type, COMPRESSED.type)]
    images = _one_a_camera(images)
    infos = {name for name, kind in types.items() if kind == CAMERA_INFO.type}
    cameras = [name for name in images if infos.intersection(infos_beside(name))] or images
    cameras = [name for name in cameras if not _NO_CAMERA.search(name)] or cameras
    return _one_of_each(cameras)


def _odometry(bag: BagReader, wanted: str, candidates: list[str]) -> str:
    """The wanted topic, that of the usual name, the only one, or none."""
    if wanted:
        return _pick(bag, ODOM, "odom", wanted, candidates)
    usual = [name for name in candidates if name == ODOM.bag_name] or candidates
    return usual[0] if len(usual) == 1 else ""


def _pick(bag: BagReader, topic: Topic, option: str, wanted: str, candidates: list[str]) -> str:
    """The wanted topic, or the only candidate."""
    listed, where = ", ".join(candidates) or "none", str(bag.path)
    if wanted:
        kinds = (IMAGE.type, COMPRESSED.type) if topic is IMAGE else (topic.type,)
        there = bag.topics.get(wanted)
        if there is not None and there.type in kinds and not there.count:
            raise InputError(f"nothing was recorded on '{wanted}'", where, _QOS)
        if there is None or there.type not in kinds:
            near = difflib.get_close_matches(wanted, candidates, 1)
            cure = f"did you mean {near[0]}?" if near else f"there are: {listed}"
            raise InputError(f"no {topic.type} on '{wanted}'", where, cure)
        return wanted
    if not candidates:
        other = unread(bag, topic)
        depths = [n for n, t in sorted(bag.topics.items()) if t.count and t.type == COMPRESSED.type]
        if topic is IMAGE and depths:
            other = f"{depths[0]} holds depth; record the camera's image, too"
        raise InputError(f"no {topic.type}", where, other or "record cameras and LiDAR")
    if len(candidates) > 1:
        many = f"{len(candidates)} topics of {topic.type}: {listed}"
        cure = f"choose with --{option}-topic of `amodal replay`, {option}:= of a launch"
        raise InputError(many, where, cure)
    return candidates[0]


def unread(bag: BagReader, topic: Topic = POINTS) -> str:
    """Why a bag has nothing of a topic's type, and what helps; "" where nothing tells it.

    It was announced and not recorded, or a LiDAR sent what is not read.
    """
    empty = [n for n, t in sorted(bag.topics.items()) if t.type == topic.type and not t.count]
    if empty:
        return f"nothing was recorded on {', '.join(empty)}: {_QOS}"
    for name, other in sorted(bag.topics.items()) if topic is POINTS else ():
        cure = _OTHER_CLOUDS.get(other.type.rpartition("/")[2])
        if other.count and cure is not None:
            return f"{name} is {other.type}: {cure}"
    return ""


def _one_of_each(images: list[str]) -> list[str]:
    """One image topic of each camera: of what image_proc makes of one, the best in colour."""
    best: dict[str, str] = {}
    for name in images:
        folder, _, last = name.removesuffix(COMPRESSED_SUFFIX).rpartition("/")
        key = folder if last in _ONE_OF else name
        before = best.get(key, name).removesuffix(COMPRESSED_SUFFIX).rpartition("/")[2]
        if key not in best or _ONE_OF.index(last) < _ONE_OF.index(before):
            best[key] = name
    return list(best.values())


def infos_beside(image: str) -> tuple[str, str]:
    """Where the camera_info of an image topic usually is: beside it, or below it."""
    raw = image.removesuffix(COMPRESSED_SUFFIX)
    return f"{raw.rpartition('/')[0]}/camera_info", f"{raw}/camera_info"


def _info_of(
    bag: BagReader, image: str, images: list[str], infos: list[str], *, optional: bool
) -> str:
    """The camera_info of an image topic: beside it, of its frame, or the only one.

    Args:
        bag: the bag.
        image: the image topic.
        images: of all cameras, whose camera_infos are no other's.
        infos: all topics of camera_infos.
        optional: "" where none is the image's.
    """
    beside = [name for name in infos_beside(image) if name in infos]
    if beside:
        return beside[0]
    frame = _frame_in(bag, image) if infos else ""
    same = [name for name in infos if frame and _frame_in(bag, name) == frame]
    if len(same) == 1:
        return same[0]
    others = {name for other in images for name in infos_beside(other)}
    if len(infos) == 1 and infos[0] not in others:
        return infos[0]
    if optional:
        return ""
    text = f"none of {', '.join(infos)} is beside {image} or alone of its frame '{frame}'"
    cure = "give a calibration file, or camera_info:= of a launch"
    raise InputError(text, str(bag.path), cure)


def _frame_in(bag: BagReader, topic: str) -> str:
    """The frame of a topic's first message."""
    first = next(bag.messages([topic]), None)
    return "" if first is None else str(first.message.header.frame_id).lstrip("/")


def _one_a_camera(images: list[str]) -> list[str]:
    """Of topics that hold the same image, one: raw rather than compressed.

    What is compressed in another way (compressedDepth, theora) is no image here.
    """
    raw = {name for name in images if not name.endswith(COMPRESSED_SUFFIX)}
    return [
        name
        for name in images
        if name in raw or name.removesuffix(COMPRESSED_SUFFIX) not in raw
        if not name.endswith("/compressedDepth")
    ]
