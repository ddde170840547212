"""nuScenes, Argoverse 2 and Waymo: as their development kits read them, and as the world was."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import recorded_scenes as scenes
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from amodal_core.bags.reader import BagReader
from amodal_core.datasets.arrow_files import read_columns
from amodal_core.datasets.bag import BagSet
from amodal_core.datasets.box_masks import box_masks
from amodal_core.datasets.ipc_sizes import unpacked_size
from amodal_core.datasets.nuscenes import json_rows
from amodal_core.datasets.recorded import CLASSES
from amodal_core.datasets.registry import open_dataset
from amodal_core.errors import InputError
from amodal_core.evaluation.truth import read_truth
from amodal_core.geometry.boxes3d import corners
from amodal_core.geometry.projection import to_camera
from amodal_core.masks.mask_set import RleMasks
from amodal_ros.cli.main import app

WRITERS = {
    "nuscenes": scenes.write_nuscenes,
    "av2": scenes.write_argoverse,
    "waymo": scenes.write_waymo,
}
LIDARS = {
    "nuscenes": scenes.BASE_FROM_LIDAR
    @ np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    "av2": scenes.rigid(scenes.BASE_FROM_UP_LIDAR[:3, 3], Rotation.identity()),
    "waymo": scenes.rigid(scenes.BASE_FROM_TOP[:3, 3], Rotation.identity()),
}
FORMATS = list(WRITERS)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("recorded")
    return {name: write(base / name) for name, write in WRITERS.items()}


@pytest.fixture(scope="module")
def kits() -> dict:
    return json.loads((Path(__file__).parent / "fixtures" / "recorded_drives.json").read_text())


def projected(frame) -> np.ndarray:
    """(N, 3) pixels and depth of a frame's points."""
    cam = to_camera(frame.points, frame.calibration)
    uv = cam @ frame.calibration.K.T
    return np.column_stack([uv[:, :2] / uv[:, 2:], cam[:, 2]])


# As the development kits read the same files -----------------------------------------------------


def test_points_and_boxes_of_nuscenes_are_where_its_kit_puts_them(roots, kits):
    data = open_dataset(roots["nuscenes"])
    height, width = scenes.SIZE
    for sample, kit in zip(data, kits["nuscenes"], strict=True):
        stamps = [sample.frame.stamp, sample.frame.points_stamp]
        assert stamps == [1000 * s for s in kit["stamps"]]
        uvd = projected(sample.frame)
        u, v, depth = uvd.T
        inside = (depth > 0.5) & (u > 1) & (u < width - 1) & (v > 1) & (v < height - 1)
        # The kit moves points through the world in single precision.
        np.testing.assert_allclose(uvd[inside][::41], kit["uvd"], atol=8e-3)
        truth = sample.truth
        named = zip(truth.ids.tolist(), corners(truth.boxes3d), strict=True)
        for number, own in named:
            vertices = to_camera(own, sample.frame.calibration)
            wanted = np.array(kit["boxes"][scenes.OBJECTS[number][0]]["corners"])
            # The kit's boxes keep roll and pitch in the LiDAR's frame, ours have a heading.
            assert _farthest(vertices, wanted) < 0.08


def test_points_and_boxes_of_argoverse_are_where_its_kit_puts_them(roots, kits):
    data = open_dataset(roots["av2"])
    for index, kit in enumerate(kits["av2"]):
        sample = data[index]
        assert [sample.frame.stamp, sample.frame.points_stamp] == kit["stamps"]
        uvd = projected(sample.frame)
        u, v, depth = uvd.T
        height, width = scenes.SIZE
        valid = (depth > 0) & (u >= 0) & (u < width - 1) & (v >= 0) & (v < height - 1)
        np.testing.assert_allclose(uvd[valid][::41], kit["uvd"], atol=2e-3)
        np.testing.assert_allclose(data.rig(index).base_from_camera, kit["camera"], atol=1e-5)
        from_camera = np.linalg.inv(data.rig(index).base_from_camera)
        for cuboid in data.cuboids(index):
            own = to_camera(corners(cuboid.box[None])[0], sample.frame.calibration)
            name = scenes.OBJECTS[9 - _uuid_number(cuboid.id)][1]
            if name != "REGULAR_VEHICLE":  # two of them
                wanted = scenes.at(from_camera, np.array(kit["boxes"][name]))
                assert _farthest(own, wanted) < 0.08


def _uuid_number(rank: int) -> int:
    """Identities are the ranks of the uuids, "uuid-4" to "uuid-9"."""
    return 4 + rank


def _farthest(a: np.ndarray, b: np.ndarray) -> float:
    """The largest distance from a corner to the nearest of the other box, whatever their order."""
    return float(np.linalg.norm(a[:, None] - b[None], axis=2).min(axis=1).max())


def test_waymos_range_images_become_the_points_of_its_kit(roots, kits):
    data = open_dataset(roots["waymo"])
    place = scenes.BASE_FROM_TOP[:3, 3]
    for index, kit in enumerate(kits["waymo"]):
        points = data.points(index)[::11, :3] + place
        np.testing.assert_allclose(points, kit["points"], atol=2e-3)


def test_columns_of_the_written_waymo_tree_are_those_that_waymo_declares(roots, kits):
    from pyarrow import parquet

    for component, declared in kits["waymo_columns"].items():
        path = next((roots["waymo"] / component).glob("*.parquet"))
        assert set(parquet.read_schema(path).names) <= set(declared)


# As the world was --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_calibration_takes_the_scan_of_its_moment_to_the_camera_of_the_images(roots, name):
    data = open_dataset(roots[name])
    for sample in data:
        scan, image = (s // 1000 for s in (sample.frame.points_stamp, sample.frame.stamp))
        assert image - scan == scenes.CAMERA_LATE
        world_from_lidar = scenes.world_from_base(scan) @ LIDARS[name]
        camera_from_world = np.linalg.inv(scenes.world_from_base(image) @ scenes.BASE_FROM_CAMERA)
        wanted = camera_from_world @ world_from_lidar
        np.testing.assert_allclose(sample.frame.calibration.camera_from_lidar, wanted, atol=2e-3)
        np.testing.assert_allclose(sample.frame.calibration.K, scenes.K)
        # Axes are ours whatever the set's: what is ahead in the camera is ahead in the scan.
        assert (np.linalg.inv(wanted)[:3, :3] @ (0, 0, 1))[0] > 0.95


@pytest.mark.parametrize("name", ["nuscenes", "av2"])
def test_points_are_those_of_the_world(roots, name):
    for sample in open_dataset(roots[name]):
        world_from_lidar = scenes.world_from_base(sample.frame.points_stamp // 1000) @ LIDARS[name]
        world = scenes.at(world_from_lidar, sample.frame.points[:, :3].astype(np.float64))
        # Argoverse keeps 11 bits.
        tolerance = 2e-3 if name == "nuscenes" else 0.03
        np.testing.assert_allclose(world, scenes.world_points(), atol=tolerance)
        wanted = np.arange(len(world)) % 256 / 255
        np.testing.assert_allclose(sample.frame.points[:, 3], wanted, atol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_boxes_stand_where_the_objects_stand(roots, name):
    data = open_dataset(roots[name])
    for index, sample in enumerate(data):
        world_from_lidar = scenes.world_from_base(sample.frame.points_stamp // 1000) @ LIDARS[name]
        boxes = sample.truth.boxes3d
        centres = scenes.at(world_from_lidar, boxes[:, :3].astype(np.float64))
        places = np.array([o[4] for o in scenes.OBJECTS])
        nearest = np.linalg.norm(centres[:, None] - places[None], axis=2).argmin(axis=1)
        np.testing.assert_allclose(centres, places[nearest], atol=5e-3)
        # The car behind and the cone are none of the objects in the image.
        assert sorted(nearest) == [0, 1, 2, 4]
        for k, box in zip(nearest.tolist(), boxes, strict=True):
            np.testing.assert_allclose(box[3:6], scenes.OBJECTS[k][3], atol=1e-5)
            heading = world_from_lidar[:3, :3] @ (np.cos(box[6]), np.sin(box[6]), 0)
            turn = np.arctan2(heading[1], heading[0]) - scenes.OBJECTS[k][5]
            assert abs(np.angle(np.exp(1j * turn))) < 5e-3
        labels = [CLASSES[k] for k in sample.truth.class_ids]
        truck = "car" if name == "waymo" else "truck"  # Waymo knows vehicles alone
        named = {0: "car", 1: truck, 2: "pedestrian", 4: "cyclist"}
        assert labels == [named[k] for k in nearest.tolist()]
        assert index == data.place(index).index


def test_identities_last_through_a_drive(roots):
    for name in FORMATS:
        data = open_dataset(roots[name])
        ids = [data.truth(k).ids.tolist() for k in range(len(data))]
        assert ids[0] == ids[1] == ids[2]
        assert len(set(ids[0])) == 4


def test_what_nobody_rides_is_ignored_and_visibility_becomes_a_hidden_share(roots):
    data = open_dataset(roots["nuscenes"])
    rates, ignore = data.truth(1).occlusion_rates, data.truth(1).ignore
    np.testing.assert_allclose(rates, [0.8, 0.5, 0.3, 0.8])
    assert ignore.tolist() == [False, False, False, True]
    assert data.truth(0).ignore is None  # ridden there


def test_images_of_waymo_are_rectified_and_others_left_as_they_are(roots):
    for name in ("nuscenes", "av2"):
        image = open_dataset(roots[name])[0].frame.image.astype(int)
        assert np.abs(image - scenes.image(0)).max() <= 6
    data = open_dataset(roots["waymo"])
    k1, k2, p1, p2, k3 = scenes.LENS
    frame = data[0].frame
    # Where OpenCV's model, written out, says that a rectified pixel came from.
    for u, v in ((20, 12), (80, 45), (140, 80)):
        x, y = (u - scenes.K[0, 2]) / scenes.K[0, 0], (v - scenes.K[1, 2]) / scenes.K[1, 1]
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        raw_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        raw_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        raw = scenes.K[0, 0] * raw_x + scenes.K[0, 2], scenes.K[1, 1] * raw_y + scenes.K[1, 2]
        wanted = raw[0], 2 * raw[1], 20  # what is painted there
        np.testing.assert_allclose(frame.image[v, u], wanted, atol=4)


def test_with_sweeps_every_image_is_a_frame_and_annotated_moments_alone_have_truth(roots):
    nuscenes = open_dataset(roots["nuscenes"], sweeps=True)
    assert [nuscenes.truth(k) is not None for k in range(5)] == [True, False, True, False, True]
    av2 = open_dataset(roots["av2"], sweeps=True)
    assert [av2.truth(k) is not None for k in range(6)] == [True, False] * 3
    # No sweep within 50 ms of the last image.
    assert [s.frame.points is not None for s in av2] == [True] * 5 + [False]
    gaps = [abs(s.frame.points_stamp - s.frame.stamp) for s in list(av2)[:5]]
    assert max(gaps) <= 50_000_000


@pytest.mark.parametrize("name", FORMATS)
def test_derived_masks_say_so_and_follow_the_boxes(roots, name):
    data = open_dataset(roots[name], masks="derived")
    assert data.derived
    assert "derived" in data.name
    bare, truth = open_dataset(roots[name]).truth(0), data.truth(0)
    assert not bare.amodal.rle().areas().any()
    assert truth.ids.tolist() == bare.ids.tolist()
    for mask, box in zip(truth.amodal.dense(), bare.amodal_boxes, strict=True):
        rows, columns = np.nonzero(mask)
        around = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert np.abs(np.array(around) - box).max() < 4  # silhouettes lie in their boxes
    assert not (truth.visible.rle() - truth.amodal.rle()).areas().any()
    with pytest.raises(InputError, match="derived"):
        open_dataset(roots[name], masks="drawn")


def test_a_nearer_object_hides_and_not_the_other_way_round(roots):
    truth = open_dataset(roots["nuscenes"], masks="derived").truth(0)
    car, truck = truth.ids.tolist().index(0), truth.ids.tolist().index(1)
    assert truth.occlusion_rates[truck] > 0.02
    assert truth.occluders[truck, car]
    assert not truth.occluders[car, truck]


def test_derived_masks_of_kittis_boxes_are_like_those_drawn_by_hand(kitti_object_root):
    """Five objects of real frames, whose whole outlines were drawn for a benchmark."""
    file = Path(__file__).parents[1] / "benchmarks" / "real_frames" / "kitti.json"
    data = open_dataset(kitti_object_root)
    classes = [c.lower() for c in data.classes]
    overlaps = []
    for k in range(3):
        sample = data[k]
        content = json.loads(file.read_text())[f"kitti_object/{sample.name}.png"]
        ids = sample.truth.class_ids.tolist()
        boxes = sample.truth.boxes3d.astype(np.float64)
        amodal, visible, _ = box_masks(boxes, [classes[i] for i in ids], sample.frame)
        assert not (visible - amodal).areas().any()
        for drawn in content["objects"]:
            mask = np.zeros(sample.frame.size, np.uint8)
            cv2.fillPoly(mask, [np.array(drawn["amodal"], np.int32)], 1)
            overlaps.append(amodal.iou(RleMasks.from_dense(mask[None] > 0)).max())
    assert len(overlaps) == 5
    assert min(overlaps) > 0.6
    assert np.mean(overlaps) > 0.78


# To bags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_bag_gives_back_scan_and_camera_with_the_motion_between_them(roots, name, tmp_path):
    out = tmp_path / "bag"
    result = CliRunner().invoke(app, ["convert", name, str(roots[name]), str(out)])
    assert result.exit_code == 0, result.output
    with BagReader(out) as bag:
        counts = {t.name: t.count for t in bag.topics.values()}
    assert counts["/kitti/labels"] == counts["/kitti/velo/pointcloud"] == 3
    assert counts["/tf"] == 6
    for read, sample in zip(BagSet(out), open_dataset(roots[name]), strict=True):
        assert read.frame.stamp == sample.frame.stamp
        np.testing.assert_array_equal(read.frame.image, sample.frame.image)
        # The bag's reader moves the points to the image's time: they fall where they fell.
        ahead = projected(sample.frame)[:, 2] > 1
        moved = to_camera(read.frame.points, read.frame.calibration)[ahead]
        wanted = to_camera(sample.frame.points, sample.frame.calibration)[ahead]
        np.testing.assert_allclose(moved, wanted, atol=3e-3)


def test_the_masks_of_a_bag_are_derived_only_where_they_are_asked_for(roots, tmp_path):
    out = tmp_path / "bag"
    arguments = ["convert", "av2", str(roots["av2"]), str(out), "--derived-masks"]
    result = CliRunner().invoke(app, [*arguments, "--max-frames", "2"])
    assert result.exit_code == 0, result.output
    assert "nobody drew them" in " ".join(result.output.split())
    assert "nobody drew them" in (out / "metadata.yaml").read_text()
    read, data = BagSet(out)[1], open_dataset(roots["av2"], masks="derived")
    truth = data.truth(1)
    np.testing.assert_array_equal(read.truth.amodal.dense(), truth.amodal.dense())
    assert "nobody drew them" in read_truth(out).remark
    # Boxes, too, are moved to the image's time.
    own = to_camera(read.truth.boxes3d, read.frame.calibration)
    np.testing.assert_allclose(own, to_camera(truth.boxes3d, data.frame(1).calibration), atol=3e-3)


def test_converted_sets_say_that_masks_are_derived_or_that_there_are_none(roots, tmp_path):
    def run(out: Path, *words: str) -> str:
        arguments = ["data", "convert", str(roots["av2"]), str(out), "--to", "kins", *words]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    assert "nobody drew them" in run(tmp_path / "a", "--option", "masks=derived")
    assert "nobody drew them" in (tmp_path / "a" / "DERIVED.txt").read_text()
    read, data = open_dataset(tmp_path / "a"), open_dataset(roots["av2"], masks="derived")
    truth, derived = read.truth(0), data.truth(0)
    np.testing.assert_array_equal(truth.amodal.dense(), derived.amodal.dense())
    np.testing.assert_array_equal(truth.visible.dense(), derived.visible.dense())
    np.testing.assert_array_equal(truth.ignore, derived.ignore)
    assert "nobody drew them" in read_truth(tmp_path / "a").remark
    assert "unannotated; --option masks=derived" in run(tmp_path / "b")
    assert not len(open_dataset(tmp_path / "b").truth(0))
    assert not read_truth(tmp_path / "b").remark


def test_options_of_readers_come_from_the_command_line(roots):
    def run(*words: str):
        return CliRunner().invoke(app, ["data", "stats", str(roots["waymo"]), *words])

    result = run("--option", f"segment={scenes.SEGMENT}", "--option", "camera=FRONT_LEFT")
    assert result.exit_code == 0, result.output
    assert "FRONT_LEFT" in result.output
    for option, message in (("camera", "NAME=VALUE"), ("colour=red", "no option 'colour'")):
        refused = run("--option", option)
        assert message in str(refused.exception or refused.output)


# What is wrong is one line -----------------------------------------------------------------------


def test_version_1_of_waymo_is_refused_with_what_to_get_instead(tmp_path):
    (tmp_path / "segment-1.tfrecord").write_bytes(b"\0" * 64)
    for path in (tmp_path, tmp_path / "segment-1.tfrecord"):
        with pytest.raises(InputError, match=r"version 1.*version 2"):
            open_dataset(path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nuscenes", {"scene": "scene-0999"}, "scene-0001"),
        ("nuscenes", {"version": "v1.0-test"}, "v1.0-mini"),
        ("nuscenes", {"camera": "FRONT"}, "CAM_FRONT"),
        ("av2", {"camera": "front"}, "ring_front_center"),
        ("av2", {"log": "x"}, "no log"),
        ("waymo", {"camera": "REAR"}, "SIDE_LEFT"),
        ("waymo", {"segment": "x"}, "no segment"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(roots, name, options, message):
    with pytest.raises(InputError, match=message):
        open_dataset(roots[name], **options)


@pytest.mark.parametrize("name", FORMATS)
def test_check_finds_nothing_in_a_whole_tree_and_what_is_broken_in_another(roots, name, tmp_path):
    assert not [f for f in open_dataset(roots[name]).check() if f is not None]
    root = WRITERS[name](tmp_path / name)
    if name == "waymo":
        path = next((root / "lidar_pose").glob("*.parquet"))
        path.write_bytes(path.read_bytes()[:-20])
        wanted = {"broken-scan"}
    else:
        images, scans = {
            "nuscenes": ("samples/CAM_FRONT/*", "samples/LIDAR_TOP/*"),
            "av2": ("*/sensors/cameras/*/*", "*/sensors/lidar/*"),
        }[name]
        image, scan = min(root.glob(images)), sorted(root.glob(scans))[1]
        image.write_bytes(b"none")
        scan.write_bytes(scan.read_bytes()[:-7])
        wanted = {"broken-scan", "broken-image"}
    rules = {f.rule for f in open_dataset(root).check() if f is not None}
    assert wanted <= rules


def test_names_in_tables_never_leave_the_folder(tmp_path):
    root = scenes.write_nuscenes(tmp_path / "nuscenes")
    path = root / "v1.0-mini" / "sample_data.json"
    rows = json.loads(path.read_text())
    rows[0]["filename"] = "../../etc/passwd"
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match="names nothing in this folder"):
        open_dataset(root)


@pytest.mark.parametrize(
    "table", ["sample_data", "calibrated_sensor", "sample_annotation", "scene"]
)
def test_any_value_anywhere_in_a_table_is_an_input_error_or_none(tmp_path, table):
    root = scenes.write_nuscenes(tmp_path / "nuscenes", keys=1)
    path = root / "v1.0-mini" / f"{table}.json"
    rows = json.loads(path.read_text())
    for column in rows[0]:
        for junk in (None, {}, "x", -1, 1e400, [float("nan")] * 4):
            path.write_text(json.dumps([{**row, column: junk} for row in rows]))
            try:
                data = open_dataset(root, "nuscenes")
                for k in range(len(data)):
                    data.truth(k), data.points(k), data.frame(k)
            except InputError:
                pass


def test_tables_are_read_as_streams_whatever_their_layout(tmp_path):
    path = tmp_path / "table.json"
    rows = [{"token": str(k), "text": 'a "quoted" ] } text, ' * 50} for k in range(3000)]
    for indent in (None, 0, 2):
        path.write_text(json.dumps(rows, indent=indent))
        assert path.stat().st_size > 3 << 20
        assert list(json_rows(path)) == rows
    path.write_text("[]")
    assert not list(json_rows(path))
    for broken in ('{"a": 1}', '[{"a": 1}', "[1]", '[{"a": 1} x', ""):
        path.write_text(broken)
        with pytest.raises(ValueError, match=r"list|cut off|no object"):
            list(json_rows(path))


def test_readers_travel_to_the_workers_of_a_loader(roots):
    for name in FORMATS:
        data = open_dataset(roots[name])
        first = data[0]
        again = pickle.loads(pickle.dumps(data))[0]
        np.testing.assert_array_equal(again.frame.points, first.frame.points)


@pytest.mark.parametrize("compression", ["zstd", "lz4", None])
def test_the_size_of_packed_columns_is_known_before_they_are_unpacked(tmp_path, compression):
    import pyarrow as pa
    from pyarrow import ipc

    columns = {"a": np.zeros(100_000), "b": pa.array(["x", "y"] * 50_000).dictionary_encode()}
    table, path = pa.table(columns), tmp_path / "a.feather"
    options = ipc.IpcWriteOptions(compression=compression)
    with ipc.new_file(str(path), table.schema, options=options) as file:
        file.write_table(table)
    data = path.read_bytes()
    said = unpacked_size(memoryview(data)[8:])
    if compression is None:
        assert said == 0  # the file itself is as long
        return
    assert 1_200_000 <= said <= 1_200_100  # 8 bytes a number, 4 an index, 2 texts
    np.testing.assert_array_equal(read_columns(path, ["a"])["a"], columns["a"])
    # The longest buffer claims to be of 2^40 bytes.
    place = data.index((800_000).to_bytes(8, "little"))
    path.write_bytes(data[:place] + (1 << 40).to_bytes(8, "little") + data[place + 8 :])
    with pytest.raises(InputError, match="unpack to over"):
        read_columns(path, ["a"])
