"""PointCloud2 messages to NumPy arrays and back."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured
from sensor_msgs.msg import PointCloud2, PointField

from embedded_ros.importer import absent_attribute

__getattr__ = absent_attribute(__name__)

_DATATYPES: dict[int, Any] = {
    PointField.INT8: np.dtype(np.int8),
    PointField.UINT8: np.dtype(np.uint8),
    PointField.INT16: np.dtype(np.int16),
    PointField.UINT16: np.dtype(np.uint16),
    PointField.INT32: np.dtype(np.int32),
    PointField.UINT32: np.dtype(np.uint32),
    PointField.FLOAT32: np.dtype(np.float32),
    PointField.FLOAT64: np.dtype(np.float64),
}
DUMMY_FIELD_PREFIX = "unnamed_field"


def dtype_from_fields(fields: Iterable[Any], point_step: int | None = None) -> np.dtype:
    """The structured dtype of PointFields; a field with count n becomes name_0 ... name_(n-1)."""
    names: list[str] = []
    offsets: list[int] = []
    formats: list[Any] = []
    for index, field in enumerate(fields):
        datatype = _DATATYPES[field.datatype]
        name = field.name or f"{DUMMY_FIELD_PREFIX}_{index}"
        assert field.count > 0, "Can't process fields with count = 0."
        for part in range(field.count):
            names.append(name if field.count == 1 else f"{name}_{part}")
            offsets.append(field.offset + part * datatype.itemsize)
            formats.append(datatype)
    assert len(set(names)) == len(names), "Duplicate field names are not allowed!"
    layout: Any = {"names": names, "formats": formats, "offsets": offsets}
    if point_step is not None:
        layout["itemsize"] = point_step
    return np.dtype(layout)


def read_points(
    cloud: Any,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
    reshape_organized_cloud: bool = False,
) -> np.ndarray:
    """Points as a structured array in native byte order, row padding left out.

    Args:
        cloud: sensor_msgs/PointCloud2.
        field_names: the fields to read; all where absent.
        skip_nans: leave out points with a NaN in one of these fields.
        uvs: indices of the points to read.
        reshape_organized_cloud: (width, height) for a cloud of several rows, as in ROS 2.
    """
    assert isinstance(cloud, PointCloud2), "Cloud is not a sensor_msgs.msg.PointCloud2"
    dtype = dtype_from_fields(cloud.fields, cloud.point_step)
    if cloud.is_bigendian:
        dtype = dtype.newbyteorder(">")
    row_step = cloud.row_step or cloud.width * cloud.point_step
    rows = np.ndarray(
        (cloud.height, cloud.width), dtype, cloud.data, strides=(row_step, cloud.point_step)
    )
    points = rows.reshape(-1)
    if field_names is not None:
        names = points.dtype.names or ()
        assert set(field_names) <= set(names), (
            "Requests field is not in the fields of the PointCloud!"
        )
        points = points[list(field_names)]
    if cloud.is_bigendian:
        points = points.astype(points.dtype.newbyteorder("="))
    if skip_nans and not cloud.is_dense:
        keep = np.ones(len(points), bool)
        for name in points.dtype.names or ():
            keep &= ~np.isnan(points[name])
        points = points[keep]
    if uvs is not None:
        points = points[uvs if isinstance(uvs, np.ndarray) else np.fromiter(uvs, int)]
    if reshape_organized_cloud and cloud.height > 1:
        points = points.reshape(cloud.width, cloud.height)
    return points


def read_points_numpy(
    cloud: Any,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
    reshape_organized_cloud: bool = False,
) -> np.ndarray:
    """Points as (N, fields), for fields of one type; arguments as read_points."""
    chosen = [f for f in cloud.fields if field_names is None or f.name in field_names]
    assert len({f.datatype for f in chosen}) <= 1, (
        "All fields need to have the same datatype. Use `read_points()` otherwise."
    )
    points = read_points(cloud, field_names, skip_nans, uvs, reshape_organized_cloud)
    return structured_to_unstructured(points)


def read_points_list(
    cloud: Any,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
) -> list[Any]:
    """Points as named tuples; arguments as read_points."""
    names = list(field_names) if field_names is not None else [f.name for f in cloud.fields]
    point = namedtuple("Point", names)  # type: ignore[misc]
    return [point._make(p) for p in read_points(cloud, names, skip_nans, uvs)]


def create_cloud(
    header: Any, fields: Sequence[Any], points: Any, point_step: int | None = None
) -> Any:
    """A sensor_msgs/PointCloud2.

    Args:
        header: std_msgs/Header.
        fields: PointFields.
        points: structured array of the fields' dtype, (N, fields) array, or rows of values.
        point_step: bytes a point; what the fields need where absent.
    """
    dtype = dtype_from_fields(fields, point_step)
    if isinstance(points, np.ndarray) and points.dtype.names is not None:
        assert points.dtype == dtype, "PointFields and structured NumPy array dtype do not match"
    elif isinstance(points, np.ndarray):
        points = unstructured_to_structured(points, dtype=dtype)
    else:
        points = np.array([tuple(point) for point in points], dtype=dtype)
    assert points.ndim <= 2, "Points can only be organized in max. two dimensional space"
    width, height = points.shape[0], points.shape[1] if points.ndim == 2 else 1
    return PointCloud2(
        header=header,
        height=height,
        width=width,
        is_dense=False,
        is_bigendian=False,
        fields=list(fields),
        point_step=points.dtype.itemsize,
        row_step=points.dtype.itemsize * width,
        data=points.tobytes(),
    )


def create_cloud_xyz32(header: Any, points: Any) -> Any:
    """A sensor_msgs/PointCloud2 of float32 x, y, z."""
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate("xyz")
    ]
    return create_cloud(header, fields, points)
