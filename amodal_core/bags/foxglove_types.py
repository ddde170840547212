"""Foxglove's messages that are written here: their ROS 2 layout, as far as it is filled in.

Foxglove reads a recording by the definitions in it and the fields by their names, so that releases
that have more fields read these too. Positions in images are in pixels from the outer corner of
the top left pixel, colours 0-1.
"""

from __future__ import annotations

from functools import lru_cache

from rosbags.typesys import get_types_from_msg

from amodal_core.bags.factory import typestore

ANNOTATIONS_TYPE = "foxglove_msgs/msg/ImageAnnotations"
SCENE_TYPE = "foxglove_msgs/msg/SceneUpdate"
LINE_LOOP, LINE_LIST = 2, 4  # of PointsAnnotation's type
DELETE_ALL = 1  # of SceneEntityDeletion's type

_POSE = "geometry_msgs/Pose pose"
# Fields by type; the order is that of the published definitions.
_LAYOUTS = {
    "Color": "float64 r, float64 g, float64 b, float64 a",
    "Point2": "float64 x, float64 y",
    "KeyValuePair": "string key, string value",
    "CircleAnnotation": "builtin_interfaces/Time timestamp, Point2 position, float64 diameter, "
    "float64 thickness, Color fill_color, Color outline_color, KeyValuePair[] metadata",
    "PointsAnnotation": "builtin_interfaces/Time timestamp, uint8 type, Point2[] points, "
    "Color outline_color, Color[] outline_colors, Color fill_color, float64 thickness, "
    "KeyValuePair[] metadata",
    "TextAnnotation": "builtin_interfaces/Time timestamp, Point2 position, string text, "
    "float64 font_size, Color text_color, Color background_color, KeyValuePair[] metadata",
    "ImageAnnotations": "CircleAnnotation[] circles, PointsAnnotation[] points, "
    "TextAnnotation[] texts",
    "SceneEntityDeletion": "builtin_interfaces/Time timestamp, uint8 type, string id",
    "ArrowPrimitive": f"{_POSE}, float64 shaft_length, float64 shaft_diameter, "
    "float64 head_length, float64 head_diameter, Color color",
    "CubePrimitive": f"{_POSE}, geometry_msgs/Vector3 size, Color color",
    "SpherePrimitive": f"{_POSE}, geometry_msgs/Vector3 size, Color color",
    "CylinderPrimitive": f"{_POSE}, geometry_msgs/Vector3 size, float64 bottom_scale, "
    "float64 top_scale, Color color",
    "LinePrimitive": f"uint8 type, {_POSE}, float64 thickness, bool scale_invariant, "
    "geometry_msgs/Point[] points, Color color, Color[] colors, uint32[] indices",
    "TriangleListPrimitive": f"{_POSE}, geometry_msgs/Point[] points, Color color, "
    "Color[] colors, uint32[] indices",
    "TextPrimitive": f"{_POSE}, bool billboard, float64 font_size, bool scale_invariant, "
    "Color color, string text",
    "ModelPrimitive": f"{_POSE}, geometry_msgs/Vector3 scale, Color color, bool override_color, "
    "string url, string media_type, uint8[] data",
    "SceneEntity": "builtin_interfaces/Time timestamp, string frame_id, string id, "
    "builtin_interfaces/Duration lifetime, bool frame_locked, KeyValuePair[] metadata, "
    "ArrowPrimitive[] arrows, CubePrimitive[] cubes, SpherePrimitive[] spheres, "
    "CylinderPrimitive[] cylinders, LinePrimitive[] lines, TriangleListPrimitive[] triangles, "
    "TextPrimitive[] texts, ModelPrimitive[] models",
    "SceneUpdate": "SceneEntityDeletion[] deletions, SceneEntity[] entities",
}


@lru_cache(maxsize=1)
def register() -> None:
    """Add the types to the store that bags are written and read with."""
    store = typestore()
    for name, fields in _LAYOUTS.items():
        text = fields.replace(", ", "\n")
        store.register(get_types_from_msg(text, f"foxglove_msgs/msg/{name}"))
