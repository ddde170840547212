"""A COCO file of one's own: what its images, identities and masks may be like."""

from __future__ import annotations

import json
from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from amodal_core.datasets.base import Dataset
from amodal_core.datasets.convert import convert
from amodal_core.datasets.image_files import image_size, read_image
from amodal_core.datasets.registry import open_dataset
from amodal_core.datasets.statistics import Statistics, count
from amodal_core.errors import InputError
from amodal_core.evaluation.truth import read_truth
from amodal_ros.cli.eval import app

HEIGHT, WIDTH = 40, 60
BOX = [10, 10, 30, 10, 30, 30, 10, 30]
SPECK = [50.1, 20.1, 50.4, 20.1, 50.4, 20.4]  # covers no pixel's centre
LEFT_TO_RIGHT = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8)[:, None], (HEIGHT, 1, 3))


def own(
    folder: Path,
    annotations: list[dict[str, object]],
    size: tuple[int, int] = (HEIGHT, WIDTH),
    orientation: int = 1,
    suffix: str = ".jpg",
) -> Dataset:
    """One image with a class of one's own; annotations are boxes unless they say otherwise."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    name = f"bild 1{suffix}"
    Image.fromarray(LEFT_TO_RIGHT).save(folder / name, exif=exif)
    base = {"image_id": 7, "category_id": 3, "segmentation": [BOX]}
    content = {
        "images": [{"id": 7, "file_name": name, "height": size[0], "width": size[1]}],
        "categories": [{"id": 3, "name": "Gabelstapler [neu]"}],
        "annotations": [{"id": k, **base, **a} for k, a in enumerate(annotations, 1)],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return open_dataset(folder)


def rules(data: Dataset) -> list[tuple[str, str]]:
    return [(f.rule, f.id) for f in data.check() if f is not None]


# Images on their side


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_size_is_that_of_the_image_as_it_is_seen(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    data = own(tmp_path, [{}], (WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH),
               orientation, suffix)  # fmt: skip
    path = tmp_path / f"bild 1{suffix}"
    assert image_size(path) == read_image(path).shape[:2] == data.size(0)
    assert rules(data) == []
    assert data[0].frame.size == data[0].truth.size


def test_an_image_of_another_size_than_its_masks_is_no_sample(tmp_path: Path) -> None:
    data = own(tmp_path, [{}], (HEIGHT, WIDTH), orientation=6)
    assert rules(data) == [("wrong-size", "")]
    with pytest.raises(InputError, match="an image of 40x60 pixels, annotated as one of 60x40"):
        data.frame(0)
    broken: dict[str, str] = {}
    assert list(convert(data, tmp_path / "out", "coco", broken=broken)) == []
    assert list(broken) == ["bild 1"]


@pytest.mark.parametrize(
    ("change", "says"), [({"height": None}, "of another type"), ({"id": "7"}, "of another type")]
)
def test_a_file_without_one_usable_image_is_refused(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    own(tmp_path, [{}])
    file = tmp_path / "annotations.json"
    content = json.loads(file.read_text())
    whole = content["images"][0]
    file.write_text(json.dumps({**content, "images": [whole | change]}))
    with pytest.raises(InputError, match=f"no image: entry 0 .*{says}"):
        open_dataset(file)
    del whole["width"]
    file.write_text(json.dumps({**content, "images": [whole]}))
    with pytest.raises(
        InputError, match="no image: entry 0 of `images` cannot be used: no 'width'"
    ):
        open_dataset(file)


def test_a_missing_image_is_said_to_be_missing(tmp_path: Path) -> None:
    data = own(tmp_path, [{}])
    (tmp_path / "bild 1.jpg").unlink()
    with pytest.raises(InputError, match="the image is missing"):
        data.frame(0)


# Identities


@pytest.mark.parametrize("track", [-1, None, "none"])
def test_an_object_without_a_track_is_known_by_its_annotation(
    tmp_path: Path, track: object
) -> None:
    data = own(tmp_path, [{"track_id": track}, {"track_id": track}, {"track_id": 9}])
    assert data.truth(0).ids.tolist() == [1, 2, 9]
    assert rules(data) == []


def test_a_second_object_of_an_identity_is_a_finding_and_left_out_of_the_copy(
    tmp_path: Path,
) -> None:
    data = own(tmp_path, [{"track_id": 9}, {"track_id": 9}, {"id": 9}, {"id": -4}])
    assert data.truth(0).ids.tolist() == [9]
    assert rules(data) == [("duplicate-id", "2"), ("duplicate-id", "9"), ("missing-field", "-4")]
    list(data.fix(tmp_path / "clean"))
    clean = open_dataset(tmp_path / "clean")
    assert rules(clean) == []
    assert clean.truth(0).ids.tolist() == [9]


def test_frames_that_nobody_annotated_are_no_absence(tmp_path: Path) -> None:
    """Every thirtieth frame, in any order: one object is always there, one is gone once."""
    frames = [60, 0, 90, 30]
    size = {"height": HEIGHT, "width": WIDTH, "video": "v"}
    images = [{"id": f, "file_name": f"{f}.png", "frame_id": f, **size} for f in frames]
    there = [(f, 1) for f in frames] + [(0, 2), (60, 2), (90, 2)]
    objects = [{"image_id": f, "track_id": t, "category_id": 3} for f, t in there]
    annotations = [{"id": k, "segmentation": [BOX], **o} for k, o in enumerate(objects)]
    content = {"images": images, "categories": [{"id": 3, "name": "Kiste"}]}
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps({**content, "annotations": annotations}))
    counted = Statistics()
    assert len(list(count(open_dataset(file), counted))) == 4
    assert (counted.tracks, counted.returns) == (2, 1)


# Masks


def test_a_mask_without_a_pixel_is_no_object(tmp_path: Path) -> None:
    data = own(tmp_path, [{"segmentation": [SPECK]}, {}])
    assert rules(data) == [("empty-mask", "1")]
    assert data.truth(0).ids.tolist() == [2]


def test_an_evaluation_says_how_many_annotations_do_not_count(tmp_path: Path) -> None:
    own(tmp_path, [{"segmentation": [SPECK]}, {}, {"category_id": 8}, {"image_id": 99}])
    truth = read_truth(tmp_path)
    assert len(truth.set) == 1
    assert truth.remark.startswith("3 of 4 annotations break a rule and do not count")
    own(tmp_path, [{}, {}])
    assert read_truth(tmp_path).remark == ""


# Classes


def test_a_class_is_called_what_it_is_called(tmp_path: Path) -> None:
    own(tmp_path, [{}])
    row = {"image_id": 7, "category_id": 3, "score": 1.0, "segmentation": [BOX]}
    (tmp_path / "predictions.json").write_text(json.dumps([row]))
    for run in ("run [1]", "run [2]"):
        arguments = ["--gt", str(tmp_path / "annotations.json"), "--out", str(tmp_path / run)]
        arguments += ["--dt", str(tmp_path / "predictions.json")]
        result = CliRunner().invoke(app, ["image", *arguments])
        assert result.exit_code == 0, result.output
        assert "Gabelstapler [neu]" in result.output
    runs = [str(tmp_path / "run [1]"), str(tmp_path / "run [2]")]
    result = CliRunner().invoke(app, ["compare", *runs], env={"COLUMNS": "200"})
    assert "against run [1]" in result.output
    assert "run [2]" in result.output


# labelme's AI


def shape(mask: np.ndarray, x: int, y: int, label: str = "Kiste") -> dict[str, object]:
    """As labelme writes a mask: 0 and 1 in a PNG, between the corners of its box."""
    picture = BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(picture, "PNG")
    height, width = mask.shape
    points = [[float(x), float(y)], [float(x + width - 1), float(y + height - 1)]]
    text = b64encode(picture.getvalue()).decode()
    return {"label": label, "points": points, "group_id": 1, "shape_type": "mask", "mask": text}


def test_masks_of_labelme_are_read_to_the_pixel(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).random((20, 30)) < 0.5
    seen = whole[:, :15]
    broken = [{**shape(whole, 0, 0), "mask": text} for text in ("", "!", "aGFsbG8=", None)]
    far = {**shape(whole, 0, 0), "points": [[1e300, 0], [1, 1]]}
    shapes = [shape(whole, 25, 8), shape(seen, 25, 8, "Kiste_visible"), *broken, far]
    Image.fromarray(LEFT_TO_RIGHT).save(tmp_path / "a.png")
    content = {"shapes": shapes, "imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = open_dataset(tmp_path)
    amodal, visible = np.zeros((2, HEIGHT, WIDTH), bool)
    amodal[8:28, 25:55], visible[8:28, 25:40] = whole, seen
    truth = data.truth(0)
    assert np.array_equal(truth.amodal.dense(), amodal[None])
    assert np.array_equal(truth.visible.dense(), visible[None])
    assert [rule for rule, _ in rules(data)] == ["segmentation-unreadable"] * 4 + ["outside-image"]
