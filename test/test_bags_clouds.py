"""Clouds as LiDARs send them, to points; built byte by byte."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from amodal_core.bags.clouds import read_points, read_scan
from amodal_core.errors import InputError
from amodal_core.frame import Report

POINTS = np.array([[1, 2, 3, 0.25], [4, 5, 6, 0.5], [7, 8, 9, 1.0]], np.float32)
_F = {"f4": 7, "f8": 8, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6}


def _cloud(names, kinds, offsets, step, values, order="<", height=1, row_pad=0):
    """A PointCloud2 with fields wherever they are wanted."""
    n = len(values)
    width = n // height
    dtype = np.dtype(
        {
            "names": names,
            "formats": [order + k for k in kinds],
            "offsets": offsets,
            "itemsize": step,
        }
    )
    points = np.zeros(n, dtype)
    for name, column in zip(names, np.asarray(values).T, strict=True):
        points[name] = column
    rows = points.view(np.uint8).reshape(height, -1)
    data = np.pad(rows, ((0, 0), (0, row_pad)), constant_values=99).ravel()
    fields = [
        SimpleNamespace(name=n, offset=o, datatype=_F[k], count=1)
        for n, o, k in zip(names, offsets, kinds, strict=True)
    ]
    return SimpleNamespace(
        height=height,
        width=width,
        fields=fields,
        is_bigendian=order == ">",
        point_step=step,
        row_step=width * step + row_pad,
        data=data,
        is_dense=True,
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize(("height", "row_pad"), [(1, 0), (3, 0), (3, 16)])
def test_any_point_layout_gives_the_same_points(order, kind, height, row_pad):
    names = ["intensity", "z", "x", "y"]
    cloud = _cloud(
        names, ["f4", kind, kind, kind], [2, 8, 24, 16], 40, POINTS[:, [3, 2, 0, 1]], order, height,
        row_pad,
    )  # fmt: skip
    np.testing.assert_array_equal(read_points(cloud), POINTS)


@pytest.mark.parametrize("name", ["i", "reflectivity", "intensity"])
def test_intensity_is_found_under_the_names_that_drivers_use(name):
    cloud = _cloud(["x", "y", "z", name], ["f4"] * 4, [0, 4, 8, 12], 16, POINTS)
    np.testing.assert_array_equal(read_points(cloud), POINTS)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("u1", [0, 51, 255], [0, 0.2, 1]),
        ("u2", [0, 51, 255], [0, 0.2, 1]),
        ("u2", [0, 13107, 65535], [0, 0.2, 1]),
        ("f4", [0, 51, 255], [0, 0.2, 1]),
        ("f4", [0, 0.2, 1], [0, 0.2, 1]),
        ("f4", [np.nan, 0.2, 1], [0, 0.2, 1]),
    ],
)
def test_intensity_is_scaled_to_one(kind, values, expected):
    rows = np.column_stack([POINTS[:, :3], values])
    cloud = _cloud(["x", "y", "z", "intensity"], ["f4", "f4", "f4", kind], [0, 4, 8, 12], 16, rows)
    np.testing.assert_allclose(read_points(cloud)[:, 3], expected, atol=1e-6)


def test_a_cloud_without_intensity_has_zeros():
    cloud = _cloud(["x", "y", "z"], ["f4"] * 3, [0, 4, 8], 12, POINTS[:, :3])
    np.testing.assert_array_equal(read_points(cloud), POINTS * (1, 1, 1, 0))


def test_points_that_are_not_finite_are_dropped_whole():
    rows = POINTS.copy()
    rows[1, 1] = np.nan
    cloud = _cloud(["x", "y", "z", "intensity"], ["f4"] * 4, [0, 4, 8, 12], 16, rows)
    np.testing.assert_array_equal(read_points(cloud), POINTS[[0, 2]])


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_returns_that_are_none_or_of_the_vehicle_are_dropped_and_counted(kind):
    """Ouster and Livox send (0, 0, 0) for no return; 1e300 is finite as float64 alone."""
    far = np.repeat(POINTS, 100, axis=0)
    bad = [(0, 0, 0), (0.3, 0, -0.39), (np.nan, 1, 1), (5, -np.inf, 5), (1e300, 9, 9)]
    rows = np.insert(far[:, :3].astype(np.float64), [0, 7, 7, 150, 300], bad, axis=0)
    with np.errstate(over="ignore"):
        cloud = _cloud(["x", "y", "z"], [kind] * 3, [0, 8, 16], 24, rows)
    report = Report()
    points = read_points(cloud, "/lidar", minimum_range=0.5, report=report)
    np.testing.assert_array_equal(points, far * (1, 1, 1, 0))
    assert [(w.kind, w.text) for w in report.warnings] == [
        ("no return", "/lidar: 2 % of the returns dropped, not finite or nearer than 0.5 m")
    ]
    # Exactly the minimum range is kept, and 0 keeps what has a direction.
    edge = _cloud(["x", "y", "z"], ["f4"] * 3, [0, 4, 8], 12, [(0.3, 0, 0.4), (0, 0.5, 0)])
    assert len(read_points(edge, minimum_range=0.5)) == 2
    rows = [(0, 0, 0), (1e-40, 0, 0), (-1e-30, 1e-30, 0), (0.002, 0, 0), (0, -0.0015, 0)]
    near = _cloud(["x", "y", "z"], ["f4"] * 3, [0, 4, 8], 12, rows)
    report = Report()
    assert len(read_points(near, "/lidar", report=report)) == 2
    assert [w.text for w in report.warnings] == [
        "/lidar: 60 % of the returns dropped, not finite or nearer than 0.001 m"
    ]


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.zeros((4, 3)), np.full((4, 3), np.nan)])
def test_a_scan_without_a_return_is_empty_with_one_warning(rows):
    cloud = _cloud(["x", "y", "z"], ["f4"] * 3, [0, 4, 8], 12, rows)
    report = Report()
    assert read_points(cloud, "/lidar", minimum_range=0.5, report=report).shape == (0, 4)
    assert [w.kind for w in report.warnings] == ["empty scan"]
    assert report.warnings[0].text.startswith("/lidar: a scan ")


# What drivers call the fields, of which type and where; bytes of a point; height of the cloud.
_DRIVERS = {
    "ouster": (
        "x f4 0, y f4 4, z f4 8, intensity f4 16, t u4 20, reflectivity u2 24, ring u2 26, "
        "ambient u2 28, range u4 32",
        48,
        64,
    ),
    "velodyne": ("x f4 0, y f4 4, z f4 8, intensity f4 12, ring u2 16, time f4 18", 22, 1),
    "hesai": ("x f4 0, y f4 4, z f4 8, intensity u1 12, timestamp f8 16, ring u2 24", 26, 1),
    "livox": (
        "x f4 0, y f4 4, z f4 8, intensity f4 12, tag u1 16, line u1 17, timestamp f8 18",
        26,
        1,
    ),
    "sick": ("x f4 0, y f4 4, z f4 8, i f4 12, layer i4 16", 32, 16),
    "exchanged": ("x f8 0, y f8 8, z f8 16, reflectivity u2 24", 32, 640),
}


@pytest.mark.parametrize("driver", _DRIVERS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_drivers_layout_gives_the_same_points(driver, order):
    words, step, height = _DRIVERS[driver]
    columns = [word.split() for word in words.split(", ")]
    names, kinds, offsets = zip(*((n, k, int(o)) for n, k, o in columns), strict=True)
    rng = np.random.default_rng(1)
    xyz = rng.uniform(-60, 60, (640, 3)).astype(np.float32)
    # Reflectances of which 0.2 % are retroreflectors beyond the scale.
    unit = np.round(rng.beta(1, 4, 640) * 255)
    unit[17] = 255
    values = np.full((640, len(names)), 7.0)
    values[:, :3] = xyz
    calibrated = next(n for n in ("reflectivity", "intensity", "i") if n in names)
    values[:, names.index(calibrated)] = unit
    cloud = _cloud(list(names), list(kinds), list(offsets), step, values, order, height)
    expected = np.column_stack([xyz, (unit / 255).astype(np.float32)])
    np.testing.assert_allclose(read_points(cloud, minimum_range=0.5), expected, atol=1e-7)


@pytest.mark.parametrize(("name", "unit"), [("time_us", 1_000), ("t", 1)])
def test_whole_numbers_of_time_are_nanoseconds_unless_their_name_says_otherwise(name, unit):
    times = np.array([0, 50_000_000, 99_000_000]) // unit
    values = np.column_stack([POINTS[:, :3], times])
    cloud = _cloud(["x", "y", "z", name], ["f4"] * 3 + ["u4"], [0, 4, 8, 12], 16, values)
    np.testing.assert_allclose(read_scan(cloud, stamp=10**18).times, (0, 0.05, 0.099), atol=1e-6)


def test_width_and_height_exchanged_with_the_old_row_step_are_read():
    cloud = _cloud(["x", "y", "z", "intensity"], ["f4"] * 4, [0, 4, 8, 12], 16, POINTS)
    cloud.width, cloud.height = 1, 3
    np.testing.assert_array_equal(read_points(cloud), POINTS)


@pytest.mark.parametrize(
    ("kind", "scale"),
    [(kind, scale) for kind in ("f4", "f8") for scale in (1, 255, 65535)]
    + [(kind, 255) for kind in ("u1", "i2", "u2", "i4", "u4")]
    + [(kind, 65535) for kind in ("u2", "i4", "u4")],
)
def test_a_few_bright_returns_do_not_decide_the_scale_of_all(kind, scale):
    """The same dark scene with and without 0.5 % of outliers has the same intensities."""
    unit = np.linspace(0.02, 0.6, 400)
    values = unit * scale if kind[0] == "f" else np.round(unit * scale)
    xyz = np.full((400, 3), 9.0)

    def intensities(values):
        rows = np.column_stack([xyz, values])
        kinds = ["f4", "f4", "f4", kind]
        cloud = _cloud(["x", "y", "z", "intensity"], kinds, [0, 4, 8, 16], 24, rows)
        return read_points(cloud)[:, 3]

    np.testing.assert_allclose(intensities(values), values / scale, rtol=1e-5)
    bright = values.copy()
    bright[:2] = 254 if kind == "u1" else min(scale * 100, 32767 if kind == "i2" else 65535)
    result = intensities(bright)
    np.testing.assert_allclose(result[2:], (values / scale)[2:], rtol=1e-5)
    assert result.max() <= 1


def test_eight_bits_are_of_255_however_dark_the_scan_is():
    rows = np.column_stack([POINTS[:, :3], [0, 1, 1]])
    kinds = ["f4", "f4", "f4", "u1"]
    cloud = _cloud(["x", "y", "z", "intensity"], kinds, [0, 4, 8, 12], 16, rows)
    np.testing.assert_allclose(read_points(cloud)[:, 3], [0, 1 / 255, 1 / 255], rtol=1e-6)


def test_clouds_that_cannot_be_read_are_refused():
    def cloud(**change):
        made = _cloud(["x", "y", "z", "intensity"], ["f4"] * 4, [0, 4, 8, 12], 16, POINTS)
        vars(made).update(change)
        return made

    with pytest.raises(InputError, match="no field z among 'x, y'"):
        read_points(cloud(fields=cloud().fields[:2]))
    with pytest.raises(InputError, match="do not hold 1 x 3 points of 16 bytes"):
        read_points(cloud(data=np.zeros(47, np.uint8)))
    with pytest.raises(InputError, match="do not hold"):
        read_points(cloud(row_step=40, height=2))
    broken = cloud()
    broken.fields[2].offset = 14
    with pytest.raises(InputError, match="field z at offset 14 leaves the point of 16 bytes"):
        read_points(broken)
    integers = cloud()
    integers.fields[0].datatype = 5
    with pytest.raises(InputError, match="field x is 1 x i4, not one float"):
        read_points(integers)
