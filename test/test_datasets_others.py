"""COCOA, COCOA-cls, D2SA, MOVi, KINS_Video_Car, labelme and KITTI in their real layouts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from datasets_scenes import SIZE, drive, same_masks, sample, truth
from published_data import DRIVE, EMPTY, coco_like, rle, write_image, write_kins_video, write_movi

from amodal_core.datasets.base import Dataset
from amodal_core.datasets.kitti_write import calibration_lines
from amodal_core.datasets.registry import formats, open_dataset
from amodal_core.datasets.segmentation import to_polygons
from amodal_core.datasets.statistics import Statistics, count
from amodal_core.errors import InputError
from amodal_core.frame import Sample, Tracks
from amodal_core.masks.mask_set import RleMasks


def _rules(data: Dataset) -> list[str]:
    return [f.rule for f in data.check() if f is not None]


# COCOA ------------------------------------------------------------------------------------------


def _cocoa(s: Sample) -> dict[str, Any]:
    """One annotation an image with flat polygons; the masks have no holes here."""
    t = s.truth
    polygons = to_polygons(t.amodal.rle())
    regions = []
    for k in range(len(t)):
        region = {
            "segmentation": polygons[k][0],
            "name": f"thing {k}",
            "area": float(t.amodal.rle().areas()[k]),
            "isStuff": int(k == 1),
            "occlude_rate": float(t.occlusion_rates[k]),
            "order": k + 1,
        }
        if t.occlusion_rates[k] > 0:
            hidden = t.amodal.rle()[[k]] - t.visible.rle()[[k]]
            region["visible_mask"] = rle(t.visible.rle().counts[k])
            region["invisible_mask"] = rle(hidden.counts[0])
        regions.append(region)
    pairs = [f"{j + 1}-{i + 1}" for i, j in np.argwhere(t.occluders)]
    return {
        "id": 31,
        "image_id": 5,
        "author": "a",
        "url": "",
        "regions": regions,
        "depth_constraint": ",".join(pairs),
        "size": len(regions),
    }


@pytest.fixture
def cocoa(rng: np.random.Generator, tmp_path: Path) -> tuple[Path, Sample]:
    s = drive(rng, 4)[2]
    name = "COCO_val2014_000000000005.jpg"
    write_image(tmp_path / "val2014" / name, s)
    image = {"id": 5, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
    path = tmp_path / "annotations" / "COCO_amodal_val2014.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": [image], "annotations": [_cocoa(s)]}))
    return path, s


def test_cocoa_regions_become_objects_with_their_occluders(cocoa: tuple[Path, Sample]) -> None:
    path, s = cocoa
    data = open_dataset(path)
    assert data.name.startswith("cocoa ")
    t = data.truth(0)
    same_masks(s.truth, t)
    assert [data.classes[c] for c in t.class_ids] == ["thing", "stuff", "thing"]
    assert t.ids.tolist() == [31000, 31001, 31002]
    assert data[0].frame.image.shape[:2] == SIZE
    assert _rules(data) == []


def test_cocoa_without_constraints_goes_by_order(cocoa: tuple[Path, Sample]) -> None:
    path, s = cocoa
    content = json.loads(path.read_text())
    content["annotations"][0]["depth_constraint"] = ""
    path.write_text(json.dumps(content))
    assert np.array_equal(open_dataset(path).truth(0).occluders, s.truth.occluders)
    for region in content["annotations"][0]["regions"]:
        region["order"] = 10 - region["order"]
    path.write_text(json.dumps(content))
    assert not open_dataset(path).truth(0).occluders.any()


def test_cocoa_defects_are_found_and_mended_in_the_copy(
    cocoa: tuple[Path, Sample], tmp_path: Path
) -> None:
    path, _ = cocoa
    content = json.loads(path.read_text())
    regions = content["annotations"][0]["regions"]
    regions[0]["segmentation"] = [1, 2, 3, 4]
    regions[1]["visible_mask"] = rle(EMPTY)
    regions[2]["visible_mask"] = {"size": list(SIZE), "counts": "11"}
    content["annotations"][0]["depth_constraint"] = "1-9"
    path.write_text(json.dumps(content))
    data = open_dataset(path)
    expected = {"short-polygon", "occlusion-rate", "rle-broken", "unknown-order"}
    assert set(_rules(data)) == expected
    list(data.fix(tmp_path / "clean"))
    clean = open_dataset(tmp_path / "clean" / path.name)
    assert set(_rules(clean)) == {"unknown-order"}
    assert len(clean.truth(0)) == 1


@pytest.mark.parametrize(
    ("format", "json_name", "image_name"),
    [
        (
            "cocoa_cls",
            "annotations/COCO_amodal_train2014_with_classes.json",
            "train2014/COCO_train2014_000000000005.jpg",
        ),
        (
            "d2sa",
            "d2s_amodal_annotations_v1/D2S_amodal_validation.json",
            "d2s_amodal_images_v1/images/D2S_000205.jpg",
        ),
    ],
)
def test_cocoa_cls_and_d2sa_are_read_checked_and_mended(
    rng: np.random.Generator, tmp_path: Path, format: str, json_name: str, image_name: str
) -> None:
    s = sample(rng)
    write_image(tmp_path / image_name, s)
    content = coco_like(s, Path(image_name).name)
    path = tmp_path / json_name
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    data = open_dataset(path)
    assert data.name.startswith(format + " ")
    same_masks(s.truth, data.truth(0))
    assert data.classes == ("car", "toothbrush")
    assert data[0].frame.image.shape[:2] == SIZE
    assert _rules(data) == []

    content["annotations"][0]["visible_mask"] = {"size": [9, 9], "counts": "Q1"}
    content["annotations"][1]["occlude_rate"] = 0.99
    path.write_text(json.dumps(content))
    data = open_dataset(path)
    assert set(_rules(data)) == {"wrong-size", "occlusion-rate"}
    list(data.fix(tmp_path / "clean"))
    clean = open_dataset(tmp_path / "clean" / path.name)
    assert _rules(clean) == []
    assert len(clean.truth(0)) == len(s.truth) - 1


# MOVi -------------------------------------------------------------------------------------------


@pytest.fixture
def movi(rng: np.random.Generator, tmp_path: Path) -> tuple[Path, list[Sample]]:
    samples = drive(rng, 5)
    K = [[1.1, 0, -0.5], [0, -1.8, -0.5], [0, 0, -1]]
    write_movi(tmp_path / "test", samples, K)
    return tmp_path / "test", samples


def test_movi_objects_ids_and_evaluated_ones_are_read(movi: tuple[Path, list[Sample]]) -> None:
    path, samples = movi
    data = open_dataset(path)
    assert data.videos == ("17",)
    for before, after in zip(samples, data, strict=True):
        same_masks(before.truth, after.truth)
        assert np.array_equal(np.sort(before.truth.ids), after.truth.ids)
        assert after.truth.ignore[after.truth.ids == 7].all()
        assert not after.truth.ignore[after.truth.ids != 7].any()
        assert np.array_equal(before.frame.image, after.frame.image)
    assert _rules(data) == []


def test_movi_depth_is_turned_from_the_ray_to_the_optical_axis(
    movi: tuple[Path, list[Sample]],
) -> None:
    frame = open_dataset(movi[0])[0].frame
    K = frame.calibration.K
    assert np.allclose([K[0, 0], K[1, 1]], [110, 108])
    v, u = 11, 87
    ray = np.linalg.solve(K, [u, v, 1])
    assert frame.depth[v, u] * np.linalg.norm(ray) == pytest.approx(7, rel=1e-5)
    assert frame.depth.max() <= 7


def test_movi_defects_are_found_and_broken_videos_left_out(
    movi: tuple[Path, list[Sample]], tmp_path: Path
) -> None:
    path, _ = movi
    folder = path / "17"
    (folder / "segmentation_4_00003.png").unlink()
    whole = np.zeros(SIZE, np.uint8)
    cv2.imwrite(str(folder / "segmentation_11_00001.png"), whole)
    cv2.imwrite(str(folder / "rgba_full_00002.png"), np.zeros((9, 9, 3), np.uint8))
    np.save(path / "instance_list.npy", np.array(["17-11", "18-0", "17-99"]))
    data = open_dataset(path)
    assert sorted(_rules(data)) == [
        "missing-image",
        "unknown-instance",
        "unknown-instance",
        "visible-outside-amodal",
        "wrong-size",
    ]
    list(data.fix(tmp_path / "clean"))
    assert not (tmp_path / "clean" / "17").exists()
    assert np.load(tmp_path / "clean" / "instance_list.npy").size == 0


# KINS_Video_Car ---------------------------------------------------------------------------------


@pytest.fixture
def kins_video(rng: np.random.Generator, tmp_path: Path) -> tuple[Path, list[Sample]]:
    samples = drive(rng, 4)
    write_kins_video(tmp_path, samples)
    return tmp_path, samples


def test_kins_video_has_amodal_masks_where_kins_has_the_frame(
    kins_video: tuple[Path, list[Sample]],
) -> None:
    path, samples = kins_video
    data = open_dataset(path)
    assert data.name == "kins_video_car val"
    assert data.videos == (DRIVE,)
    for turn, (before, after) in enumerate(zip(samples, data, strict=True)):
        kept = before.truth.visible.rle().areas() > 0
        expected = before.truth[kept]
        assert np.array_equal(np.sort(expected.ids), after.truth.ids)
        order = np.argsort(expected.ids)
        assert after.truth.visible.counts == expected[order].visible.counts
        if turn % 2 == 0:
            assert after.truth.amodal.counts == expected[order].amodal.counts
            assert after.truth.ignore is None
        else:
            assert after.truth.ignore.all()
        assert after.frame.calibration.K[0, 0] == 70
        assert np.array_equal(after.frame.image[..., ::-1], before.frame.image)
    assert _rules(data) == []


def test_kins_video_defects_are_found_and_mended(
    kins_video: tuple[Path, list[Sample]], tmp_path: Path
) -> None:
    path, _ = kins_video
    file = path / "car_data" / "val_data.pkl"
    content = pickle.loads(file.read_bytes())
    objects = content[DRIVE]
    objects[11][0]["VM"]["counts"] = b"Q1"
    objects[11][1]["VM_bbox"] = [0, 1, 0, 1]
    objects[11][2]["VM"]["counts"] = EMPTY
    del objects[7][1]
    file.write_bytes(pickle.dumps(content))
    (path / "Kitti" / "raw_video" / "2011_09_26" / DRIVE / f"{10:010d}.png").unlink()
    data = open_dataset(path)
    rules = {"rle-broken", "box-mismatch", "empty-mask", "missing-frame", "missing-image"}
    assert set(_rules(data)) == rules
    list(data.fix(tmp_path / "clean"))
    clean = open_dataset(tmp_path / "clean")
    assert set(_rules(clean)) == {"missing-frame"}
    assert len(clean) == 3
    assert 11 not in clean.truth(0).ids


# labelme ----------------------------------------------------------------------------------------


def test_labelme_shapes_of_one_group_are_one_object(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    s = sample(rng)
    write_image(tmp_path / "a.png", s)
    whole = [[10, 10], [50, 10], [50, 40], [10, 40]]
    seen = [[10, 10], [30, 10], [30, 40], [10, 40]]
    shapes = [
        {"label": "car", "points": whole, "group_id": 1, "shape_type": "polygon", "flags": {}},
        {"label": "car_visible", "points": seen, "group_id": 1, "shape_type": "polygon"},
        {
            "label": "person",
            "points": [[60, 5], [70, 25]],
            "shape_type": "rectangle",
            "flags": True,
        },  # no table: no flags
        {"label": "ball", "points": [[80, 30], [88, 30]], "shape_type": "circle"},
        {"label": "car", "points": [[1, 2]], "shape_type": "point"},
        {"label": "car", "points": [[1, 2], [3, 4]], "shape_type": "polygon"},
    ]
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": "C:\\pictures\\a.png",
        "imageData": None,
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "b.json").write_text("{")
    data = open_dataset(tmp_path, "labelme")
    assert data.classes == ("ball", "car", "person")
    t = data.truth(0)
    assert [data.classes[c] for c in t.class_ids] == ["car", "person", "ball"]
    assert t.amodal_boxes[:2].tolist() == [[10, 10, 50, 40], [60, 5, 70, 25]]
    assert t.occlusion_rates.tolist() == [0.5, 0, 0]
    assert t.amodal.areas()[2] == pytest.approx(np.pi * 64, rel=0.05)
    assert data[0].frame.image.shape[:2] == SIZE
    assert _rules(data) == ["malformed-json", "unsupported-shape", "short-polygon"]
    list(data.fix(tmp_path / "clean"))
    clean = open_dataset(tmp_path / "clean")
    assert _rules(clean) == []
    same_masks(clean.truth(0), t)


# KITTI ------------------------------------------------------------------------------------------


def test_a_raw_drive_is_recognised_and_its_dropped_scan_found(mini_kitti_raw: Path) -> None:
    data = open_dataset(mini_kitti_raw)
    assert len(data) == 5
    assert _rules(data) == ["missing-scan"]
    assert data.truth(0) is None
    assert data[0].frame.points is not None


def test_stamps_that_run_backwards_are_found(mini_kitti_raw: Path) -> None:
    path = mini_kitti_raw / "image_02" / "timestamps.txt"
    lines = path.read_text().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    path.write_text("\n".join(lines) + "\n")
    assert "stamps-backwards" in _rules(open_dataset(mini_kitti_raw))


def _tracking(root: Path, rng: np.random.Generator) -> None:
    training = root / "training"
    for folder in ("image_02/0001", "velodyne/0001", "calib", "label_02"):
        (training / folder).mkdir(parents=True)
    s = sample(rng)
    for k in range(4):
        write_image(training / "image_02/0001" / f"{k:06d}.png", s)
        if k != 2:  # sequence 0001 lacks four scans in the release
            np.zeros((3, 4), "<f4").tofile(training / "velodyne/0001" / f"{k:06d}.bin")
    text = calibration_lines(s.frame.calibration)
    text = text.replace("R0_rect:", "R_rect").replace("Tr_velo_to_cam:", "Tr_velo_cam")
    (training / "calib" / "0001.txt").write_text(text)
    row = "Car 0 0 -1.5 {box} 1.5 1.6 4.0 1.0 1.5 10.0 0.1"
    good, bad = row.format(box="10 10 40 30"), row.format(box="40 10 10 30")
    lines = [f"0 5 {good}", f"0 5 {good}", f"1 5 {bad}", f"3 6 {good}"]
    (training / "label_02" / "0001.txt").write_text("\n".join(lines) + "\n")


def test_tracking_is_read_by_key_and_its_faults_found(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    _tracking(tmp_path, rng)
    data = open_dataset(tmp_path)
    assert data.name.startswith("kitti_tracking")
    assert data.videos == ("training/0001",)
    assert sorted(_rules(data)) == ["box-mismatch", "duplicate-id", "missing-scan"]
    assert [x.track_id for x in data.labels(3)] == [6]  # type: ignore[attr-defined]
    assert data[2].frame.points is None


def test_real_kitti_object_frames_have_no_findings(kitti_object_root: Path) -> None:
    data = open_dataset(kitti_object_root)
    assert _rules(data) == []
    assert len(data[0].frame.points) > 10_000
    s = Statistics()
    list(count(data, s))
    assert s.annotated == 3
    assert s.classes["Pedestrian"] >= 1
    assert s.occlusion.sum() == 0  # boxes tell nothing of what is hidden


# All --------------------------------------------------------------------------------------------


def test_what_is_not_known_says_what_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"something": []}')
    with pytest.raises(InputError, match="kins_video"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no format 'x'"):
        open_dataset(tmp_path, "x")
    assert len(formats()) == 21


def test_visible_masks_are_cut_to_amodal_ones_whatever_a_reader_hands_over(
    rng: np.random.Generator,
) -> None:
    from amodal_core.datasets.truth import make_truth

    t: Tracks = truth(rng)
    wrong = RleMasks(SIZE, t.amodal.rle().counts[::-1])
    made = make_truth(t.amodal.rle(), wrong, t.class_ids, t.ids)
    assert not (made.visible.rle() - made.amodal.rle()).areas().any()
    assert made.amodal.counts == t.amodal.counts
