"""Files that are broken or hostile: one line with place and cure, nothing outside the folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from datasets_scenes import CLASSES, drive

from amodal_core.datasets import coco
from amodal_core.datasets.base import Dataset
from amodal_core.datasets.convert import convert
from amodal_core.datasets.frames import frame_file, unpack
from amodal_core.datasets.image_files import write_image
from amodal_core.datasets.kitti_files import read_stamps
from amodal_core.datasets.labelme import Labelme
from amodal_core.datasets.registry import open_dataset
from amodal_core.errors import InputError, foreign
from amodal_core.files import inside
from amodal_core.geometry.calibration import read_kitti
from amodal_ros.cli import main as cli

IMAGE = {"id": 1, "file_name": "a.png", "width": 100, "height": 60}
BOX = [40, 20, 70, 20, 70, 50, 40, 50]


def opened(path: Path, content: object, format: str = "") -> Dataset:
    path.write_text(json.dumps(content))
    return open_dataset(path, format)


def coco_file(**changes: object) -> dict[str, object]:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [BOX]}
    base = {"images": [IMAGE], "categories": [{"id": 1, "name": "car"}]}
    return base | {"annotations": [annotation]} | changes


# Files that a plain user has


def test_an_image_without_annotations_is_an_empty_image(tmp_path: Path) -> None:
    regions = [{"segmentation": [1, 2], "order": 1, "isStuff": 0}]
    files: tuple[dict[str, object], ...] = (
        {"images": [IMAGE], "annotations": []},
        {"images": [IMAGE], "annotations": [{"id": 1, "image_id": 1, "regions": regions}]},
        {"images": [IMAGE], "annotations": [{"id": 1, "image_id": 1, "regions": []}]},
    )
    for content in files:
        truth = opened(tmp_path / "COCO_amodal_train2014.json", content, "cocoa").truth(0)
        assert truth is not None
        assert len(truth) == 0


@pytest.mark.parametrize("regions", [3.5, None, [3], {"a": 1}])
def test_regions_that_are_none_are_named(tmp_path: Path, regions: object) -> None:
    annotation = {"id": 7, "image_id": 1, "regions": regions}
    content = {"images": [IMAGE], "annotations": [annotation]}
    data = opened(tmp_path / "COCO_amodal_train2014.json", content, "cocoa")
    with pytest.raises(InputError, match=r"train2014\.json: regions of annotation 7"):
        data.truth(0)
    rules = {f.rule for f in data.check() if f is not None}
    assert "malformed-json" in rules


@pytest.mark.parametrize("number", [float("inf"), "x", None, [1]])
def test_category_ids_that_are_no_numbers_are_named(tmp_path: Path, number: object) -> None:
    content = coco_file(categories=[{"id": number, "name": "car"}])
    with pytest.raises(InputError, match=r"c\.json: a category without id or name"):
        opened(tmp_path / "c.json", content, "coco")


@pytest.mark.parametrize("box", [[1, 2, 3, 10**30], [1, 2, 3, float("inf")], [1, 2, "x", 3], 7])
def test_boxes_that_are_none_are_findings(tmp_path: Path, box: object) -> None:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [BOX], "bbox": box}
    data = opened(tmp_path / "c.json", coco_file(annotations=[annotation]), "coco")
    assert "box-mismatch" in {f.rule for f in data.check() if f is not None}


def test_stamps_of_other_bytes_than_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "timestamps.txt").write_bytes(b"\xf6")
    with pytest.raises(InputError, match=r"timestamps\.txt:1: malformed stamp"):
        read_stamps(tmp_path, {0: Path("0")})


def test_numbers_that_make_no_camera_are_named(tmp_path: Path) -> None:
    zeros = " ".join(["0"] * 12)
    text = f"P2: {zeros}\nR0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: {zeros}\n"
    (tmp_path / "000000.txt").write_text(text)
    with pytest.raises(InputError, match=r"000000\.txt: numbers that make no camera"):
        read_kitti(tmp_path / "000000.txt")


@pytest.mark.parametrize("cut", [0, 1, 100, -30])
def test_frames_that_were_cut_off_are_named(tmp_path: Path, cut: int) -> None:
    list(coco.write(tmp_path / "coco", drive(np.random.default_rng(0), 1), CLASSES))
    data = unpack(open_dataset(tmp_path / "coco"), tmp_path / "frames")
    file = frame_file(data.path, 0)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"000000\.npz: a broken frame"):
        data[0]
    assert [f.rule for f in data.check() if f is not None] == ["broken-frame"]


@pytest.mark.parametrize(("key", "value"), [("sizes", []), ("classes", []), ("places", 3)])
def test_an_index_that_does_not_fit_its_frames_is_named(
    tmp_path: Path, key: str, value: object
) -> None:
    list(coco.write(tmp_path / "coco", drive(np.random.default_rng(0), 1), CLASSES))
    folder = unpack(open_dataset(tmp_path / "coco"), tmp_path / "frames").path
    index = json.loads((folder / "frames.json").read_text())
    (folder / "frames.json").write_text(json.dumps(index | {key: value}))
    with pytest.raises(InputError, match=r"no unpacked frames|a broken frame"):
        open_dataset(folder).truth(0)


def test_orders_that_are_none_are_passed_over(tmp_path: Path) -> None:
    region = {"segmentation": BOX, "order": {}, "isStuff": 0}
    annotation = {"id": 1, "image_id": 1, "regions": [region], "depth_constraint": "1-2"}
    content = {"images": [IMAGE], "annotations": [annotation]}
    data = opened(tmp_path / "COCO_amodal_train2014.json", content, "cocoa")
    assert "unknown-order" in {f.rule for f in data.check() if f is not None}


# Names that lead elsewhere


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/../..", "/etc/passwd", "a\0", "x" * 300, "a/" * 2000, "\ud800"],
)
def test_names_that_leave_a_folder_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="name"):
        inside("folder", name)


def test_names_below_a_folder_are_joined_to_it() -> None:
    assert inside("folder", "a/b.png") == Path("folder/a/b.png")
    assert inside("folder", "a/../b.png") == Path("folder/b.png")
    assert inside("folder", "../b.png", "a") == Path("folder/b.png")
    with pytest.raises(InputError, match="names nothing in this folder"):
        inside("folder", "../../b.png", "a")


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "", "x" * 300 + ".png"])
def test_images_outside_a_data_set_are_findings_and_never_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    write_image(tmp_path / "a.png", np.zeros((60, 100, 3), np.uint8))
    content = coco_file(images=[IMAGE, {**IMAGE, "id": 2, "file_name": name}])
    data = opened(tmp_path / "data" / "c.json", content, "coco")
    assert len(data) == 1
    assert next(f.rule for f in data.check() if f is not None) == "malformed-image"


def test_labelme_reads_images_of_its_folder_alone(tmp_path: Path) -> None:
    shape = {"label": "car", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
    content = {"shapes": [shape], "imageHeight": 60, "imageWidth": 100}
    write_image(tmp_path / "images" / "a.png", np.zeros((60, 100, 3), np.uint8))
    (tmp_path / "labels").mkdir()
    text = json.dumps(content | {"imagePath": "..\\images\\a.png"})
    (tmp_path / "labels" / "a.json").write_text(text)
    assert Labelme(tmp_path).frame(0).size == (60, 100)
    with pytest.raises(InputError, match="names nothing in this folder"):
        Labelme(tmp_path / "labels").frame(0)


@pytest.mark.parametrize("to", ["cocovid", "asd", "bag", "labelme"])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, to: str) -> None:
    root = tmp_path / "data"
    list(coco.write(root, drive(np.random.default_rng(0), 2, ".."), CLASSES))
    data, broken = open_dataset(root), dict[str, str]()
    out = tmp_path / "there" / "OUT"
    if to in ("cocovid", "asd"):
        with pytest.raises(InputError, match="names nothing in this folder"):
            list(convert(data, out, to, broken=broken))
    else:
        list(convert(data, out, to, broken=broken))
    left = [] if to in ("cocovid", "asd") else ["OUT"]
    assert [p.name for p in out.parent.iterdir()] == left
    assert {p.name for p in tmp_path.iterdir()} == {"data", "there"}


# The boundary


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyError("size"), "no 'size'"),
        (OverflowError("too big"), "too big"),
        (RecursionError(), "nested too deeply"),
        (MemoryError(), "too large"),
        (FileNotFoundError(2, "No such file"), "No such file"),
        (ValueError("a\nb  c"), "a b c"),
    ],
)
def test_foreign_errors_become_one_line_with_place_and_cure(error: Exception, says: str) -> None:
    with (
        pytest.raises(InputError, match=rf"^f\.json: no scan: .*{says}.* \(mend it\)$"),
        foreign("f.json", "no scan", "mend it"),
    ):
        raise error


def test_what_is_no_fault_of_input_passes_the_boundary() -> None:
    for error in (InputError("what", "elsewhere"), KeyboardInterrupt(), RuntimeError()):
        with pytest.raises(type(error)) as raised, foreign("f.json"):
            raise error
        assert raised.value is error


def test_our_own_mistakes_keep_their_traceback_and_ask_to_be_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise TypeError("our own")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "TypeError: our own" in text
    assert "report it" in text
