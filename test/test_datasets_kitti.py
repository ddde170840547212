"""KITTI readers: stamps, pairing of scans, calibration, labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from amodal_core.datasets.kitti import KittiObject, KittiRaw, KittiTracking
from amodal_core.datasets.kitti_files import parse_stamp, read_scan, read_stamps
from amodal_core.datasets.kitti_labels import (
    KittiLabel,
    boxes_in_lidar,
    read_object_labels,
    read_tracking_labels,
    truth_of,
)
from amodal_core.datasets.kitti_oxts import pose, read_oxts
from amodal_core.errors import InputError
from amodal_core.evaluation.truth import read_truth
from amodal_core.geometry.boxes3d import points_in_boxes
from amodal_core.geometry.calibration import KittiCalibration
from amodal_core.geometry.projection import project


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Asia/Tokyo"])
def test_stamps_are_utc_with_nine_digits_in_every_time_zone(monkeypatch, zone):
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    assert parse_stamp("2011-09-26 13:02:25.964389445") == 1_317_042_145_964_389_445
    assert parse_stamp("1970-01-01 00:00:01") == 1_000_000_000
    assert parse_stamp("1970-01-01 00:00:00.5") == 500_000_000
    monkeypatch.undo()
    time.tzset()


def test_a_blank_line_of_timestamps_belongs_to_the_file_that_was_dropped(mini_kitti_raw):
    data = KittiRaw(mini_kitti_raw)
    assert sorted(data.scan_stamps) == [0, 1, 2, 4]
    assert [s.frame.points is None for s in data] == [False, False, False, True, False]
    assert data[4].frame.points_stamp - data[4].frame.stamp == 333_333


def test_stamps_without_blank_lines_follow_the_files(mini_kitti_raw):
    path = mini_kitti_raw / "velodyne_points" / "timestamps.txt"
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if line))
    data = KittiRaw(mini_kitti_raw)
    assert [s.frame.points is None for s in data] == [False, False, False, True, False]


def test_a_scan_of_another_moment_is_not_paired_by_its_number(mini_kitti_raw):
    path = mini_kitti_raw / "velodyne_points" / "timestamps.txt"
    lines = path.read_text().splitlines()
    # Scan 1 carries the time of image 2, scan 2 that of image 1.
    lines[1], lines[2] = lines[2], lines[1]
    path.write_text("\n".join(lines) + "\n")
    data = KittiRaw(mini_kitti_raw)
    assert [data.scan_of(k) for k in range(5)] == [0, 2, 1, None, 4]


def test_stamps_that_fit_no_file_are_an_error_that_names_the_file(tmp_path):
    (tmp_path / "timestamps.txt").write_text("2011-09-26 13:02:25.0\n")
    with pytest.raises(InputError, match=r"timestamps\.txt: 1 stamps for 2 files"):
        read_stamps(tmp_path, {0: Path("0"), 1: Path("1")})
    (tmp_path / "timestamps.txt").write_text("yesterday\n")
    with pytest.raises(InputError, match=r"timestamps\.txt:1: malformed stamp 'yesterday'"):
        read_stamps(tmp_path, {0: Path("0")})


def test_samples_know_image_calibration_and_place(mini_kitti_raw):
    data = KittiRaw(mini_kitti_raw)
    sample = data[1]
    assert len(data) == 5
    assert sample.frame.image.shape == (48, 96, 3)
    assert sample.frame.calibration.width == 96
    assert (sample.video, sample.index) == ("2011_09_26_drive_0042_sync", 1)
    assert sample.frame.stamp == parse_stamp("2011-09-26 13:02:25.100123456")
    assert [s.index for s in data[-2:]] == [3, 4]
    with pytest.raises(IndexError):
        data[5]


def test_the_camera_offset_in_the_projection_is_applied_once(mini_kitti_raw):
    frame = KittiRaw(mini_kitti_raw)[0].frame
    # 10 m ahead of the LiDAR; the camera is 0.25 m ahead and, all in all, 0.5 m to the right.
    point = np.array([[10.0, 0.0, 0.0, 0.5]], np.float32)
    u, v = project(point, frame.calibration).pixels[0]
    assert u == round(48 - 60 * 0.5 / 9.75)
    assert v == 24


def test_a_scan_that_was_cut_off_is_refused(tmp_path):
    (tmp_path / "0.bin").write_bytes(b"\0" * 33)
    with pytest.raises(InputError, match="33 bytes are not whole points"):
        read_scan(tmp_path / "0.bin")


def test_a_folder_without_a_drive_says_what_is_expected(tmp_path, mini_kitti_raw):
    with pytest.raises(InputError, match="calib_cam_to_cam"):
        KittiRaw(tmp_path / "nowhere")
    for path in (mini_kitti_raw / "image_02" / "data").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no images"):
        KittiRaw(mini_kitti_raw)


def test_oxts_packets_give_metres_from_the_first(mini_kitti_raw):
    files = sorted((mini_kitti_raw / "oxts" / "data").iterdir())
    packets = [read_oxts(f) for f in files]
    moved = pose(packets[4], packets[0])
    # 0.4 s at 10 m/s to the north, on the sphere that the Mercator projection is of.
    np.testing.assert_allclose(moved[:3, 3], (0, 4.0, 0), atol=1e-3)
    # Heading north: the car's x axis is the world's y axis.
    np.testing.assert_allclose(moved[:3, 0], (0, 1, 0), atol=1e-9)
    files[0].write_text("1 2 3")
    with pytest.raises(InputError, match="3 numbers instead of 30"):
        read_oxts(files[0])


LINE = "Car 0.10 2 1.85 387.63 181.54 423.81 203.12 1.50 1.60 4.00 2.00 1.65 20.00 0.00"


def test_labels_are_read_with_all_their_columns(tmp_path):
    (tmp_path / "a.txt").write_text(LINE + "\n\n" + LINE + " 0.75\n")
    plain, scored = read_object_labels(tmp_path / "a.txt")
    assert plain.type == "Car"
    assert (plain.truncated, plain.occluded, plain.rotation_y) == (0.1, 2, 0.0)
    assert plain.box == (387.63, 181.54, 423.81, 203.12)
    assert plain.size == (1.5, 1.6, 4.0)
    assert (plain.track_id, plain.score, scored.score) == (-1, 1.0, 0.75)


def test_tracking_labels_are_grouped_by_frame(tmp_path):
    (tmp_path / "0.txt").write_text(f"0 7 {LINE}\n2 7 {LINE}\n2 9 {LINE}\n")
    frames = read_tracking_labels(tmp_path / "0.txt")
    assert {f: [x.track_id for x in labels] for f, labels in frames.items()} == {0: [7], 2: [7, 9]}


@pytest.mark.parametrize(
    "line", ["Car 1 2 3", LINE.replace("Car", "Cow"), LINE.replace("20.00", "x")]
)
def test_a_malformed_label_is_named_with_its_line(tmp_path, line):
    (tmp_path / "a.txt").write_text(f"{LINE}\n{line}\n")
    with pytest.raises(InputError, match=r"a\.txt:2: malformed label"):
        read_object_labels(tmp_path / "a.txt")


def test_boxes_reach_the_lidar_frame_with_their_heading():
    turn = np.eye(4)
    turn[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    calibration = KittiCalibration(np.eye(3, 4), np.eye(4), turn)
    # 20 m ahead, 2 m right, bottom 1.65 m below; rotation 0 heads along x, to the right.
    label = KittiLabel("Car", 0, 0, 0, (0, 0, 1, 1), (1.5, 1.6, 4.0), (2.0, 1.65, 20.0), 0.0)
    ahead = KittiLabel("Car", 0, 0, 0, (0, 0, 1, 1), (1.5, 1.6, 4.0), (0, 0, 20.0), -np.pi / 2)
    region = KittiLabel("DontCare", -1, -1, -10, (0, 0, 1, 1), (-1, -1, -1), (-1000,) * 3, -10)
    boxes = boxes_in_lidar([label, ahead, region], calibration)
    np.testing.assert_allclose(boxes[0], (20, -2, -0.9, 4, 1.6, 1.5, -np.pi / 2), atol=1e-5)
    np.testing.assert_allclose(boxes[1, 6], 0, atol=1e-6)
    assert np.isnan(boxes[2]).all()


def test_a_tracking_sequence_pairs_scans_by_number(tmp_path, mini_kitti_raw):
    root = tmp_path / "tracking" / "training"
    for name in ("image_02", "velodyne"):
        (root / name / "0001").mkdir(parents=True)
    (root / "calib").mkdir()
    (root / "label_02").mkdir()
    for k in (0, 1, 2):
        source = mini_kitti_raw / "image_02" / "data" / f"{k:010d}.png"
        (root / "image_02" / "0001" / f"{k:06d}.png").write_bytes(source.read_bytes())
    np.ones((3, 4), "<f4").tofile(root / "velodyne" / "0001" / "000002.bin")
    P = " ".join(str(v) for v in (60, 0, 48, 0, 0, 60, 24, 0, 0, 0, 1, 0))
    (root / "calib" / "0001.txt").write_text(
        f"P2: {P}\nR_rect 1 0 0 0 1 0 0 0 1\nTr_velo_cam 0 -1 0 0 0 0 -1 0 1 0 0 0\n"
    )
    (root / "label_02" / "0001.txt").write_text(f"2 5 {LINE}\n")
    data = KittiTracking(tmp_path / "tracking", 1)
    assert [s.frame.points is None for s in data] == [True, True, False]
    assert [len(data.labels(k)) for k in range(3)] == [0, 0, 1]
    assert data[1].frame.stamp - data[0].frame.stamp == 100_000_000
    assert data[0].video == "training/0001"


def test_returns_fall_into_the_annotated_boxes_of_real_images(kitti_object_root):
    data = KittiObject(kitti_object_root)
    checked = 0
    for index in range(len(data)):
        labels = [x for x in data.labels(index) if x.type != "DontCare" and x.location[2] < 40]
        frame = data[index].frame
        boxes = boxes_in_lidar(labels, data.calibration(index))
        for label, box in zip(labels, boxes, strict=True):
            away = frame.points[:, :3] - box[:3]
            c, s = np.cos(box[6]), np.sin(box[6])
            local = away @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
            inside = (np.abs(local) <= box[3:6] / 2 + 0.05).all(axis=1)
            assert inside.sum() > 20
            pixels = project(frame.points[inside], frame.calibration).pixels
            x0, y0, x1, y1 = label.box
            seen = (pixels >= (x0 - 3, y0 - 3)) & (pixels <= (x1 + 3, y1 + 3))
            assert seen.all(axis=1).mean() > 0.95
            checked += 1
    assert checked >= 3


def test_a_real_raw_drive_pairs_every_image_with_its_scan(kitti_raw_drive):
    data = KittiRaw(kitti_raw_drive)
    assert len(data) == 36
    assert all(data.scan_of(k) == k for k in range(36))
    frame = data[20].frame
    assert frame.points_stamp - frame.stamp == 3_000_000
    assert len(frame.points) > 100_000


def test_labelled_frames_have_truth_in_the_lidar_frame(kitti_object_root):
    data = KittiObject(kitti_object_root)
    (place,) = [k for k in range(len(data)) if data.place(k).name.endswith("000001")]
    sample = data[place]
    truth = sample.truth
    assert [data.classes[c] for c in truth.class_ids] == ["Truck", "Car", "Cyclist"]
    assert [x.type for x in data.labels(place)].count("DontCare") == 4
    np.testing.assert_allclose(truth.amodal_boxes[0], (599.41, 156.40, 629.75, 189.25), atol=1e-4)
    # The truck: 69.44 m ahead of the camera, which is 0.27 m ahead of the LiDAR; h 2.85, l 12.34.
    np.testing.assert_allclose(truth.boxes3d[0, [0, 3, 4, 5]], (69.7, 12.34, 2.63, 2.85), atol=0.1)
    assert [points_in_boxes(sample.frame.points, truth.boxes3d[k])[0].sum() for k in (1, 2)] == [
        9,
        18,
    ]
    assert not data.has_masks
    assert not truth.amodal.rle().areas().any()
    # Truck: visible, 33 px high; car and cyclist: occluded 0 and 3.
    assert [x.difficulty for x in data.labels(place)[:3]] == [1, -1, -1]
    assert data.hard(place).tolist() == [False, True, True]
    levels = [replace(data.labels(place)[0], occluded=k) for k in range(4)]
    levels = truth_of(levels, data.calibration(place), data.size(place), data.classes)
    assert levels.occlusion_rates.tolist() == [0, 0.25, 0.75, 0]


@pytest.mark.parametrize(
    ("height", "occluded", "truncated", "difficulty"),
    [
        (41.0, 0, 0.15, 0),
        (40.0, 0, 0.0, 0),
        (39.9, 0, 0.0, 1),
        (41.0, 0, 0.16, 1),
        (41.0, 1, 0.3, 1),
        (41.0, 2, 0.3, 2),
        (26.0, 0, 0.5, 2),
        (24.9, 0, 0.0, -1),
        (99.0, 3, 0.0, -1),
        (99.0, 0, 0.51, -1),
    ],
)
def test_difficulty_is_the_first_whose_limits_hold(height, occluded, truncated, difficulty):
    box = (0.0, 100.0, 50.0, 100.0 + height)
    label = KittiLabel("Car", truncated, occluded, 0.0, box, (1, 1, 1), (0, 0, 9), 0.0)
    assert label.difficulty == difficulty


def test_what_needs_masks_refuses_kitti(kitti_object_root):
    with pytest.raises(InputError, match="boxes, no masks"):
        read_truth(kitti_object_root)
