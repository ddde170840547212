"""PointCloud2 messages to NumPy arrays and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured
from sensor_msgs.msg import PointCloud2, PointField

_DATATYPES: dict[int, np.dtype] = {
    getattr(PointField, name.upper()): np.dtype(name)
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
}


def dtype_from_fields(fields: Iterable[Any], point_step: int | None = None) -> np.dtype:
    """The structured dtype of PointFields; a field with count n becomes name_0 ... name_(n-1)."""
    columns: dict[str, tuple[np.dtype, int]] = {}
    for index, field in enumerate(fields):
        datatype = _DATATYPES[field.datatype]
        name = field.name or f"unnamed_field_{index}"
        assert field.count > 0, "Can't process fields with count = 0."
        for element in range(field.count):
            key = name if field.count == 1 else f"{name}_{element}"
            assert key not in columns, "Duplicate field names are not allowed!"
            columns[key] = (datatype, field.offset + element * datatype.itemsize)
    layout: Any = {
        "names": list(columns),
        "formats": [datatype for datatype, _ in columns.values()],
        "offsets": [offset for _, offset in columns.values()],
    }
    if point_step is not None:
        layout["itemsize"] = point_step
    return np.dtype(layout)


def read_points(
    cloud: Any, field_names: Sequence[str] | None = None, skip_nans: bool = False
) -> np.ndarray:
    """Points as a structured array in native byte order, row padding left out.

    Args:
        cloud: sensor_msgs/PointCloud2.
        field_names: the fields to read; all where absent.
        skip_nans: leave out points with a NaN in one of these fields.
    """
    dtype = dtype_from_fields(cloud.fields, cloud.point_step)
    if cloud.is_bigendian:
        dtype = dtype.newbyteorder(">")
    row_step = cloud.row_step or cloud.width * cloud.point_step
    strides = (row_step, cloud.point_step)
    rows = np.ndarray((cloud.height, cloud.width), dtype, cloud.data, strides=strides)
    points = rows.reshape(-1)
    if field_names is not None:
        points = points[list(field_names)]
    if cloud.is_bigendian:
        points = points.astype(points.dtype.newbyteorder("="))
    if skip_nans and not cloud.is_dense:
        names = points.dtype.names or ()
        points = points[~np.any([np.isnan(points[name]) for name in names], axis=0)]
    return points


def read_points_numpy(
    cloud: Any, field_names: Sequence[str] | None = None, skip_nans: bool = False
) -> np.ndarray:
    """Points as (N, fields), for fields of one type; arguments as read_points."""
    chosen = [f for f in cloud.fields if field_names is None or f.name in field_names]
    assert len({f.datatype for f in chosen}) <= 1, (
        "All fields need to have the same datatype. Use `read_points()` otherwise."
    )
    return structured_to_unstructured(read_points(cloud, field_names, skip_nans))


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
    if not isinstance(points, np.ndarray):
        points = np.array([tuple(point) for point in points], dtype=dtype)
    elif points.dtype.names is None:
        points = unstructured_to_structured(points, dtype=dtype)
    assert points.dtype == dtype, "PointFields and structured NumPy array dtype do not match"
    assert points.ndim == 1, "Points must be in one row"
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=list(fields),
        point_step=dtype.itemsize,
        row_step=dtype.itemsize * len(points),
        data=points.tobytes(),
    )


def create_cloud_xyz32(header: Any, points: Any) -> Any:
    """A sensor_msgs/PointCloud2 of float32 x, y, z."""
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate("xyz")
    ]
    return create_cloud(header, fields, points)
