"""KINS in its real layout, with every defect that the releases are known for planted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import datasets_scenes
import numpy as np
import pytest

from amodal_core.datasets import kins
from amodal_core.datasets.image_files import read_image, write_image
from amodal_core.datasets.kins import Kins
from amodal_core.datasets.kitti_write import calibration_lines
from amodal_core.datasets.registry import open_dataset
from amodal_core.errors import InputError
from amodal_core.frame import Calibration

HEIGHT, WIDTH = 60, 120
CATEGORIES_2020 = ["cyclist", "pedestrian", "rider", "car", "tram", "truck", "van", "misc"]


def _box(x: int, y: int, w: int, h: int) -> list[list[int]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _annotation(
    number: int, image: int, amodal: list, visible: list, **fields: Any
) -> dict[str, Any]:
    def area(polygons: list) -> int:
        if not polygons or len(polygons[0]) < 8:
            return 1
        p = polygons[0]
        return int((p[2] - p[0]) * (p[5] - p[1]))

    def xywh(polygons: list) -> list:
        if not polygons or len(polygons[0]) < 8:
            return [0, 0, 1, 1]
        p = polygons[0]
        return [p[0], p[1], p[2] - p[0], p[5] - p[1]]

    return {
        "id": number,
        "image_id": image,
        "category_id": 4,
        "iscrowd": 0,
        "a_segm": amodal,
        "i_segm": visible,
        "a_bbox": xywh(amodal),
        "i_bbox": xywh(visible),
        "a_area": area(amodal),
        "i_area": area(visible),
        "oco_id": 1,
        "ico_id": 0,
        **fields,
    }


@pytest.fixture
def layout(tmp_path: Path) -> dict[str, Any]:
    """Three images in KITTI's folders; image ids and the JSON's order disagree with the stems."""
    kitti = tmp_path / "training"
    for folder in ("image_2", "velodyne", "calib"):
        (kitti / folder).mkdir(parents=True)
    K = np.array([[70.0, 0, 60], [0, 70.0, 30], [0, 0, 1]])
    T = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    for stem in range(3):
        # The stem's grey value tells which image was read.
        grey = np.full((HEIGHT + stem, WIDTH - stem, 3), 40 * (stem + 1), np.uint8)
        cv2.imwrite(str(kitti / "image_2" / f"{stem:06d}.png"), grey)
        scan = np.full((5, 4), stem, "<f4")
        scan.tofile(kitti / "velodyne" / f"{stem:06d}.bin")
        lines = calibration_lines(Calibration(K, T, WIDTH - stem, HEIGHT + stem))
        (kitti / "calib" / f"{stem:06d}.txt").write_text(lines)
    images = [
        {"id": 500 - stem, "file_name": f"{stem:06d}.png", "height": HEIGHT + stem,
         "width": WIDTH - stem}
        for stem in (2, 0, 1)
    ]  # fmt: skip
    annotations = [
        _annotation(1, 500, _box(10, 10, 40, 30), _box(10, 10, 40, 30), ico_id=1),
        _annotation(2, 500, _box(40, 20, 40, 30), _box(50, 20, 30, 30), ico_id=2),
        _annotation(3, 500, _box(90, 5, 20, 20), _box(90, 5, 20, 20), category_id=2, oco_id=2),
        _annotation(4, 499, _box(100, 40, 40, 40), _box(100, 40, 40, 40)),  # beyond the border
    ]
    return {
        "path": tmp_path / "update_train_2020.json",
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": n} for k, n in enumerate(CATEGORIES_2020, 1)],
    }


def _open(layout: dict[str, Any]) -> Kins:
    path: Path = layout["path"]
    path.write_text(json.dumps({k: v for k, v in layout.items() if k != "path"}))
    return Kins(path)


def _found(data: Kins) -> list[tuple[str, str]]:
    return [(f.rule, f.id) for f in data.check() if f is not None]


def test_images_scans_and_calibration_are_joined_by_file_name(layout: dict[str, Any]) -> None:
    data = _open(layout)
    for index, stem in enumerate((2, 0, 1)):
        sample = data[index]
        assert sample.name == f"{stem:06d}"
        assert sample.frame.image[0, 0, 0] == 40 * (stem + 1)
        assert sample.frame.image.shape[:2] == (HEIGHT + stem, WIDTH - stem) == data.size(index)
        assert sample.frame.points[0, 0] == stem
        assert sample.frame.calibration.width == WIDTH - stem
    assert [len(data.truth(k)) for k in range(3)] == [0, 3, 1]


def test_images_without_scans_are_read_too(layout: dict[str, Any], tmp_path: Path) -> None:
    for path in (tmp_path / "training" / "velodyne").iterdir():
        path.unlink()
    (tmp_path / "training" / "velodyne").rmdir()
    data = _open(layout)
    assert data[0].frame.points is None
    assert _found(data) == []


def test_occluders_are_of_the_same_cluster_and_nearer_in_its_order(
    layout: dict[str, Any],
) -> None:
    truth = _open(layout).truth(1)
    assert truth.occluders.astype(int).tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert np.allclose(truth.occlusion_rates, [0, 0.25, 0])
    # The same masks in different clusters do not hide each other.
    layout["annotations"][1]["oco_id"] = 9
    assert not _open(layout).truth(1).occluders.any()
    # Nor does the farther one hide the nearer.
    layout["annotations"][1] |= {"oco_id": 1, "ico_id": 1}
    layout["annotations"][0]["ico_id"] = 2
    assert not _open(layout).truth(1).occluders.any()


def test_polygons_beyond_the_border_are_cut(layout: dict[str, Any]) -> None:
    truth = _open(layout).truth(2)
    assert truth.amodal_boxes.tolist() == [[100, 40, WIDTH - 1, HEIGHT + 1]]


def test_2019s_seven_categories_and_run_lengths_are_read(layout: dict[str, Any]) -> None:
    from pycocotools import mask as coco

    layout["path"] = layout["path"].with_name("instances_train.json")
    layout["categories"] = [c for c in layout["categories"] if c["id"] != 3]
    for a in layout["annotations"]:
        image = next(i for i in layout["images"] if i["id"] == a["image_id"])
        rle = coco.merge(coco.frPyObjects(a.pop("i_segm"), image["height"], image["width"]))
        a["inmodal_seg"] = {"size": rle["size"], "counts": rle["counts"].decode()}
        a["segmentation"], a["bbox"], a["area"] = a.pop("a_segm"), a.pop("a_bbox"), a.pop("a_area")
        a["inmodal_bbox"] = a.pop("i_bbox")
        for key in ("oco_id", "ico_id", "i_area"):
            del a[key]
    data = _open(layout)
    assert data.classes == ("cyclist", "pedestrian", "car", "tram", "truck", "van", "misc")
    truth = data.truth(1)
    assert [data.classes[c] for c in truth.class_ids] == ["car", "car", "pedestrian"]
    assert np.allclose(truth.occlusion_rates, [0, 0.25, 0])
    assert truth.occluders[1, 0]
    assert _found(data) == []


def test_a_sound_file_has_no_findings(layout: dict[str, Any]) -> None:
    layout["annotations"].pop()
    assert _found(_open(layout)) == []


DEFECTS = {
    "empty-polygon": {"a_segm": []},
    "short-polygon": {"a_segm": [[1, 2, 3, 4]]},
    "visible-outside-amodal": {"i_segm": _box(60, 10, 40, 30)},
    "visible-area-larger": {"i_area": 10**6},
    "unknown-category": {"category_id": 77},
    "duplicate-id": {"id": 2},
    "unknown-image": {"image_id": 4711},
    "outside-image": {"a_segm": [[1, 2, 1e7, 4, 5, 6]]},
    "segmentation-unreadable": {"a_segm": "polygon"},
    "box-mismatch": {"a_bbox": [90, 50, 4, 4]},
    "missing-field": {"id": None},
    "empty-mask": {"a_segm": [[125, 70, 135, 70, 135, 80]]},
}


@pytest.mark.parametrize("rule", DEFECTS)
def test_each_defect_is_found_and_mended_in_the_copy(
    layout: dict[str, Any], tmp_path: Path, rule: str
) -> None:
    layout["annotations"].pop()
    layout["annotations"][0] |= DEFECTS[rule]
    before = _open(layout)
    assert rule in {found for found, _ in _found(before)}
    original = layout["path"].read_bytes()

    list(before.fix(tmp_path / "clean"))
    assert layout["path"].read_bytes() == original
    after = Kins(tmp_path / "clean" / layout["path"].name)
    assert _found(after) == []
    assert len(after) == 3
    assert after[1].frame.points is not None
    # What is not concerned stays as it is.
    assert after.truth(1).amodal.counts[-1] == before.truth(1).amodal.counts[-1]


@pytest.mark.parametrize("rule", ["empty-polygon", "short-polygon"])
def test_an_object_without_visible_polygon_counts_as_wholly_hidden(
    layout: dict[str, Any], rule: str
) -> None:
    layout["annotations"][0] |= {"i_segm": []} if rule == "empty-polygon" else {"i_segm": [[1, 2]]}
    data = _open(layout)
    assert (rule, "1") in _found(data)
    if rule == "empty-polygon":
        assert data.truth(1).occlusion_rates[0] == 1


def test_an_object_whose_visible_area_is_zero_is_hidden_by_intent(layout: dict[str, Any]) -> None:
    layout["annotations"][0] |= {"i_segm": [], "i_area": 0, "i_bbox": [0, 0, 0, 0]}
    data = _open(layout)
    assert _found(data) == []
    assert data.truth(1).occlusion_rates[0] == 1


def _remove(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-13])


def _resize(path: Path) -> None:
    cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH + 5, 3), np.uint8))


def _garbage(path: Path) -> None:
    path.write_bytes(b"no image at all")


@pytest.mark.parametrize(
    ("rule", "file", "harm"),
    [
        ("missing-image", "image_2/000000.png", _remove),
        ("broken-image", "image_2/000000.png", _cut),
        ("broken-image", "image_2/000000.png", _garbage),
        ("wrong-size", "image_2/000000.png", _resize),
        ("missing-scan", "velodyne/000000.bin", _remove),
        ("broken-scan", "velodyne/000000.bin", _cut),
        ("missing-calibration", "calib/000000.txt", _remove),
        ("broken-calibration", "calib/000000.txt", _cut),
    ],
)
def test_each_broken_file_is_found_and_named(
    layout: dict[str, Any], tmp_path: Path, rule: str, file: str, harm: Any
) -> None:
    layout["annotations"].pop()
    if rule == "broken-calibration":
        path = tmp_path / "training" / file
        path.write_text(path.read_text().replace("Tr_velo_to_cam", "Tr"))
    else:
        harm(tmp_path / "training" / file)
    data = _open(layout)
    findings = [f for f in data.check() if f is not None]
    assert [f.rule for f in findings] == [rule]
    assert findings[0].where.endswith(file)
    list(data.fix(tmp_path / "clean"))
    kept = Kins(tmp_path / "clean" / layout["path"].name)
    assert len(kept) == (2 if "image" in rule or "size" in rule else 3)


def test_duplicate_images_are_found(layout: dict[str, Any]) -> None:
    layout["images"].append(dict(layout["images"][0], id=3))
    layout["images"].append(dict(layout["images"][1], file_name="000009.png"))
    rules = {rule for rule, _ in _found(_open(layout))}
    assert {"duplicate-image-file", "duplicate-image-id", "missing-image"} <= rules


@pytest.mark.parametrize(
    ("json_at", "images_at", "name"),
    [
        ("update_train_2020.json", "training/image_2", "{:06d}.png"),
        ("annotations/train.json", "train_imgs", "{:06d}.png"),
        ("annotations/instances_train.json", "train2017", "{:012d}.jpg"),
        ("annotations/instances_val.json", "val2017", "{:012d}.jpg"),
        ("annotations/test.json", "test_imgs", "{:06d}.png"),
        ("x/update_test_2020.json", "testing/image_2", "{:06d}.png"),
    ],
)
def test_every_layout_in_use_is_found(
    tmp_path: Path, json_at: str, images_at: str, name: str
) -> None:
    sample = datasets_scenes.sample(np.random.default_rng(0))
    list(kins.write(tmp_path / "made", [sample, sample], datasets_scenes.CLASSES))
    root = tmp_path / "kins"
    for folder in {"train_imgs", "test_imgs", "train2017", "val2017", images_at}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(sorted((tmp_path / "made/training/image_2").iterdir())):
        write_image(root / images_at / name.format(index), read_image(image))
    (root / json_at).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "made/update_train_2020.json").rename(root / json_at)
    for path in (root / json_at, (root / json_at).parent):  # the file, or the folder it is alone in
        data = open_dataset(path, "kins")
        assert [data.frame(k).size for k in range(2)] == [(60, 100)] * 2
        assert not [f for f in data.check() if f is not None and "image" in f.rule]
    elsewhere = tmp_path / "elsewhere.json"
    (root / json_at).rename(elsewhere)
    for images in (root / images_at, root):
        moved = open_dataset(elsewhere, "kins", images)
        if images != root or ("test" not in json_at and "val" not in json_at):
            assert moved.frame(1).size == (60, 100)


def test_a_folder_with_several_files_asks_for_one(tmp_path: Path) -> None:
    for name in ("update_train_2020.json", "update_test_2020.json"):
        sample = datasets_scenes.sample(np.random.default_rng(0))
        list(kins.write(tmp_path / name, [sample], datasets_scenes.CLASSES))
        (tmp_path / name / "update_train_2020.json").rename(tmp_path / f"x{name}")
    with pytest.raises(InputError, match=r"2 files of annotations for 'kins'.*name one of"):
        open_dataset(tmp_path, "kins")
