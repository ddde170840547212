"""The topics that pass between sensors and nodes, declared once."""

from __future__ import annotations

from amodal_ros.declarations import Topic

_ARRAY = "amodal_msgs/msg/AmodalInstanceArray"

IMAGE = Topic(
    "image", "sensor_msgs/msg/Image", "sensor", "Rectified camera image (rgb8, bgr8, mono8, ...)"
)
CAMERA_INFO = Topic(
    "camera_info", "sensor_msgs/msg/CameraInfo", "sensor", "The image's rectified calibration"
)
POINTS = Topic(
    "points", "sensor_msgs/msg/PointCloud2", "sensor", "LiDAR scan: x, y, z and intensity"
)
TF_STATIC = Topic(
    "/tf_static", "tf2_msgs/msg/TFMessage", "latched_tf", "Where the LiDAR stands", required=False
)
TF = Topic("/tf", "tf2_msgs/msg/TFMessage", "tf", "Where what moves stands", required=False)

DEPTH = Topic(
    "depth/image",
    "sensor_msgs/msg/Image",
    "reliable",
    "LiDAR depth in metres (32FC1) with the image's stamp and frame, 0 where no return falls",
)
INSTANCES = Topic(
    "instances", _ARRAY, "reliable", "Objects of one image: visible and whole masks, not tracked"
)
TRACKS = Topic("tracks", _ARRAY, "reliable", "Objects with identities, hidden ones included")
DETECTIONS = Topic(
    "detections",
    "vision_msgs/msg/Detection2DArray",
    "reliable",
    "The seen tracks as amodal boxes; the id is the track's",
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
GROUND_TRUTH = Topic("ground_truth", _ARRAY, "reliable", "Truth of the bag", required=False)
