"""Result files are read back as they were written, and what is wrong with them is named."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import HEIGHT, WIDTH, box, counts, random_pair, rectangles
from pycocotools import mask as coco

from amodal_core.errors import InputError
from amodal_core.evaluation import formats, image_level
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS, VIDEO_PROTOCOLS
from amodal_core.evaluation.run import evaluate
from amodal_core.evaluation.sets import AnnotationSet, empty_set
from amodal_core.evaluation.truth import Truth, read_truth

IDS = (4, 7, 9)  # category ids of car, pedestrian, cyclist


def a_truth(truth: AnnotationSet) -> Truth:
    videos = dict(enumerate(dict.fromkeys(i.video for i in truth.images), start=11))
    return Truth(truth, {c: k for k, c in enumerate(IDS)}, videos)


def same(one: AnnotationSet, two: AnnotationSet, *, visible: bool = True) -> None:
    for name in ("image_ids", "class_ids", "scores", "boxes"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name))
    assert one.amodal == two.amodal
    if visible:
        assert one.visible == two.visible
        np.testing.assert_allclose(one.occlusion_rates, two.occlusion_rates)


def test_a_folder_of_results_comes_back_as_it_was_written(tmp_path):
    truth, predictions = random_pair(1, images=12)
    written = formats.write_results(predictions, tmp_path, IDS)
    assert [p.name for p in written] == ["visible.json", "amodal.json"]
    back = formats.read_predictions(tmp_path, a_truth(truth))
    same(back, predictions)
    np.testing.assert_array_equal(back.instance_ids, predictions.instance_ids)
    np.testing.assert_allclose(back.depths, predictions.depths)


def test_both_files_are_joined_by_id_whatever_their_order(tmp_path):
    truth, predictions = random_pair(2, images=8)
    formats.write_results(predictions, tmp_path, IDS)
    rows = json.loads((tmp_path / "visible.json").read_text())
    (tmp_path / "visible.json").write_text(json.dumps(rows[::-1]))
    same(formats.read_predictions(tmp_path, a_truth(truth)), predictions)


def test_files_without_ids_are_joined_by_order(tmp_path):
    truth, predictions = random_pair(2, images=8)
    formats.write_results(predictions, tmp_path, IDS)
    for name in ("visible.json", "amodal.json"):
        rows = json.loads((tmp_path / name).read_text())
        for row in rows:
            del row["id"], row["occlusion_rate"]
        (tmp_path / name).write_text(json.dumps(rows))
    # The occlusion rate is then what the two masks say.
    same(formats.read_predictions(tmp_path, a_truth(truth)), predictions)


def test_a_single_file_holds_masks_of_one_kind_and_knows_no_occlusion(tmp_path):
    truth, predictions = random_pair(3, images=8)
    formats.write_results(predictions, tmp_path, IDS)
    rows = json.loads((tmp_path / "amodal.json").read_text())
    for row in rows:
        del row["occlusion_rate"], row["instance_id"], row["bbox"]
    (tmp_path / "one.json").write_text(json.dumps(rows))
    back = formats.read_predictions(tmp_path / "one.json", a_truth(truth), "amodal")
    same(back, predictions, visible=False)
    assert not back.has("visible")
    assert np.isnan(back.occlusion_rates).all()
    assert (back.instance_ids == -1).all()
    with pytest.raises(InputError, match="no visible mask"):
        image_level.evaluate(truth, back, "visible", IMAGE_PROTOCOLS["coco"])


def test_polygons_and_uncompressed_rle_are_masks_too(tmp_path):
    truth, _ = random_pair(3, images=2)
    mask = rectangles([(10, 12, 20, 8)])
    flat = mask.flatten(order="F")
    ends = [0, *np.flatnonzero(np.diff(flat)) + 1, flat.size]
    runs = [int(b - a) for a, b in pairwise(ends)]
    rows = [
        {"image_id": 1, "category_id": 4, "score": 0.5, "segmentation": s}
        for s in (
            [[10, 12, 30, 12, 30, 20, 10, 20]],
            {"size": [HEIGHT, WIDTH], "counts": runs},
        )
    ]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    back = formats.read_predictions(tmp_path / "r.json", a_truth(truth))
    assert back.amodal == [counts(mask)] * 2
    np.testing.assert_array_equal(back.boxes, [box(mask)] * 2)


@pytest.mark.parametrize("entry", [{}, {"score": None}])
@pytest.mark.parametrize("name", ["segmentation", "segmentations"])
def test_an_entry_without_a_score_is_refused(tmp_path, entry, name):
    truth, _ = random_pair(3, images=2)
    whose = {"segmentation": {"image_id": 1}, "segmentations": {"video_id": 11}}[name]
    row = {**whose, "category_id": 4, name: [], **entry}
    (tmp_path / "r.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match="entry 0: no score"):
        formats.read_predictions(tmp_path / "r.json", a_truth(truth))


def test_entries_with_neither_mask_nor_box_are_refused(tmp_path):
    truth, _ = random_pair(3, images=2)
    rows = [{"image_id": 1, "category_id": 4, "score": 0.5, "segmentation": None}]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    nothing = formats.read_predictions(tmp_path / "r.json", a_truth(truth))
    with pytest.raises(InputError, match="neither masks nor boxes"):
        evaluate(truth, nothing, IMAGE_PROTOCOLS["default"], "image")


def test_kins_joined_results_come_back_with_both_masks(tmp_path):
    truth, predictions = random_pair(4, images=8)
    formats.write_kins_results(predictions, tmp_path / "kins.json", IDS)
    same(formats.read_predictions(tmp_path / "kins.json", a_truth(truth)), predictions)


def test_youtube_vis_lists_come_back_track_by_track(tmp_path):
    truth, predictions = random_pair(5, images=24, videos=3)
    # A list has one score and one class a track: give them that.
    keys = [
        (int(predictions.image_ids[n] - 1) % 3, int(predictions.instance_ids[n]))
        for n in range(len(predictions))
    ]
    first = {key: keys.index(key) for key in keys}
    leads = np.array([first[key] for key in keys])
    predictions = replace(
        predictions,
        scores=predictions.scores[leads],
        class_ids=predictions.class_ids[leads],
    )
    names = a_truth(truth)
    for kind in ("amodal", "visible"):
        shown = predictions.select(predictions.areas(kind) > 0)
        path = tmp_path / f"{kind}.json"
        formats.write_video_results(shown, path, kind, names)
        rows = json.loads(path.read_text())
        assert {r["video_id"] for r in rows} == {11, 12, 13}
        assert {len(r["segmentations"]) for r in rows} == {8}
        back = formats.read_predictions(path, names, kind)
        assert len(back) == len(shown)
        one, two = (
            evaluate(truth, p, VIDEO_PROTOCOLS["default"], "video", [kind]).scores[kind].values
            for p in (shown, back)
        )
        np.testing.assert_allclose(list(one.values()), list(two.values()), atol=1e-12)
        assert one["vAP50"] > 0.05


def test_genvis_writes_an_empty_mask_where_the_object_is_not_there(tmp_path):
    """Three frames: an RLE without a pixel, null, and a mask; only the mask is a prediction."""
    truth, _ = random_pair(6, images=3)
    nothing = coco.encode(np.zeros((HEIGHT, WIDTH), np.uint8, order="F"))["counts"].decode()
    mask = rectangles([(5, 5, 10, 10)])
    row = {
        "video_id": 11,
        "category_id": 4,
        "score": 0.8,
        "segmentations": [
            {"size": [HEIGHT, WIDTH], "counts": nothing},
            None,
            {"size": [HEIGHT, WIDTH], "counts": counts(mask).decode()},
        ],
    }
    (tmp_path / "r.json").write_text(json.dumps([row]))
    back = formats.read_predictions(tmp_path / "r.json", a_truth(truth), "amodal")
    assert back.image_ids.tolist() == [3]
    assert back.amodal == [counts(mask)]


def test_frames_of_result_lists_are_counted_by_place_not_by_number(tmp_path):
    """Frame numbers of a video may begin anywhere and have gaps: 40, 42, 47 are places 0, 1, 2."""
    truth, _ = random_pair(6, images=3)
    images = [i._replace(frame=f) for i, f in zip(truth.images, (40, 42, 47), strict=True)]
    mask = {"size": [HEIGHT, WIDTH], "counts": counts(rectangles([(5, 5, 9, 9)])).decode()}
    row = {"video_id": 11, "category_id": 4, "score": 1.0, "segmentations": [None, mask, None]}
    (tmp_path / "r.json").write_text(json.dumps([row]))
    back = formats.read_predictions(tmp_path / "r.json", a_truth(replace(truth, images=images)))
    assert back.image_ids.tolist() == [2]


def broken(tmp_path: Path, change) -> tuple[Path, Truth]:
    truth, predictions = random_pair(7, images=4)
    formats.write_results(predictions, tmp_path, IDS)
    rows = json.loads((tmp_path / "amodal.json").read_text())
    (tmp_path / "r.json").write_text(json.dumps(change(rows)))
    return tmp_path / "r.json", a_truth(truth)


def changed(**fields):
    def change(rows):
        rows[0].update(fields)
        return rows

    return change


SMALL = {"size": [5, 5], "counts": "PPYo1"}


@pytest.mark.parametrize(
    ("change", "output"),
    [
        (changed(image_id=999), "image id 999 is not in the ground truth"),
        (changed(category_id=5), "category id 5 is not in the ground truth"),
        (changed(segmentation=SMALL), "a mask of 5x5, the image has 80x60"),
        (changed(segmentation={"counts": "x"}), "not a COCO segmentation"),
        (changed(segmentation=[[1, 2]]), "not a COCO segmentation"),
        (
            changed(segmentation={"size": [HEIGHT, WIDTH], "counts": "PPYo1PPYo1"}),
            "RLE counts that do not fill the image",
        ),
        (changed(segmentation=[[0, 0, 1e9, 0, 1e9, 1e9]]), "far outside the image"),
        (changed(segmentation={"size": [HEIGHT, WIDTH], "counts": 5000000000}), "no text"),
        (changed(segmentation={"size": [HEIGHT, WIDTH], "counts": [4800, 0, 1]}), "do not fill"),
        (changed(segmentation=7), "not a COCO segmentation"),
        (changed(score="high"), "score is 'high', no number"),
        (changed(score=1.5), "score is 1.5, not in 0 to 1"),
        (changed(score=-0.1), "score is -0.1, not in 0 to 1"),
        (changed(score=float("nan")), "score is nan, not in 0 to 1"),
        (changed(score=10**400), "score is 1000.*, no number"),
        (changed(occlusion_rate=2), "occlusion_rate is 2, not in 0 to 1"),
        (changed(instance_id=1e300), "instance_id is 1e\\+300, not in"),
        (changed(depth=float("inf")), "depth is inf, not in"),
        (changed(bbox=[1, 2, 3, float("nan")]), "bbox is .* not x, y, width, height"),
        (changed(bbox=[1, 2, 3, 10**400]), "bbox is .* not x, y, width, height"),
        (changed(bbox=[1, 2, 3]), "bbox is .* not x, y, width, height"),
        (changed(category_id=None), "category id None"),
        (changed(image_id=[1]), "image id"),
        (lambda rows: {"annotations": rows}, "this is a ground truth"),
        (lambda rows: 5, "not a list of results"),
        (
            lambda rows: [{"video_id": 3, "category_id": 4, "segmentations": []}],
            "video id 3 is not in the ground truth",
        ),
        (
            lambda rows: [{"video_id": 11, "category_id": 4, "segmentations": [None] * 9}],
            "9 frames, the video has 4",
        ),
    ],
)
def test_what_is_wrong_with_a_results_file_is_said_in_one_line(tmp_path, change, output):
    path, truth = broken(tmp_path, change)
    with pytest.raises(InputError, match=output) as caught:
        formats.read_predictions(path, truth)
    assert str(path) in caught.value.where
    assert caught.value.cure


def test_unequal_and_missing_files_are_errors(tmp_path):
    truth, predictions = random_pair(8, images=4)
    formats.write_results(predictions, tmp_path, IDS)
    rows = json.loads((tmp_path / "visible.json").read_text())
    (tmp_path / "visible.json").write_text(json.dumps(rows[1:]))
    with pytest.raises(InputError, match="entries"):
        formats.read_predictions(tmp_path, a_truth(truth))
    (tmp_path / "visible.json").write_text("[{")
    with pytest.raises(InputError, match="not JSON"):
        formats.read_predictions(tmp_path, a_truth(truth))
    with pytest.raises(InputError, match="no such file"):
        formats.read_predictions(tmp_path / "none.json", a_truth(truth))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither"):
        formats.read_predictions(tmp_path / "empty", a_truth(truth))


def test_an_empty_list_of_results_gives_zero_and_says_so(tmp_path):
    truth, _ = random_pair(1, images=5)
    (tmp_path / "r.json").write_text("[]")
    none = formats.read_predictions(tmp_path / "r.json", a_truth(truth))
    result = evaluate(truth, none, IMAGE_PROTOCOLS["default"], "image")
    assert result.scores["amodal"].values["AP"] == 0.0
    assert any("no predictions" in w for w in result.warnings)


def test_an_empty_ground_truth_is_refused_before_anything_is_computed():
    _, predictions = random_pair(1, images=5)
    nothing = empty_set(predictions.images, predictions.classes)
    with pytest.raises(InputError, match="no annotation"):
        evaluate(nothing, predictions, IMAGE_PROTOCOLS["default"], "image")


def polygon(x: int, y: int, w: int, h: int) -> list[list[int]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def test_kins_ground_truth_keeps_its_image_and_category_ids(tmp_path):
    amodal, visible = (10, 10, 20, 20), (10, 10, 20, 10)
    data = {
        "images": [
            {"id": 70, "file_name": "000007.png", "height": HEIGHT, "width": WIDTH},
            {"id": 30, "file_name": "000003.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 1, "name": "cyclist"}, {"id": 4, "name": "car"}],
        "annotations": [
            {
                "id": 5,
                "image_id": 30,
                "category_id": 4,
                "iscrowd": 0,
                "a_segm": polygon(*amodal),
                "i_segm": polygon(*visible),
                "a_bbox": list(amodal),
                "i_bbox": list(visible),
                "a_area": 400,
                "i_area": 200,
                "oco_id": 1,
                "ico_id": 1,
            }
        ],
    }
    path = tmp_path / "update_test_2020.json"
    path.write_text(json.dumps(data))
    truth = read_truth(path)
    assert truth.category_ids == {1: 0, 4: 1}
    assert sorted(i.id for i in truth.set.images) == [30, 70]
    assert truth.set.image_ids.tolist() == [30]
    assert truth.set.occlusion_rates[0] == pytest.approx(0.5)
    entry = {
        "image_id": 30,
        "category_id": 4,
        "score": 0.9,
        "bbox": list(amodal),
        "segmentation": polygon(*amodal),
        "inmodal_seg": polygon(*visible),
    }
    (tmp_path / "r.json").write_text(json.dumps([entry]))
    predictions = formats.read_predictions(tmp_path / "r.json", truth)
    result = evaluate(truth.set, predictions, IMAGE_PROTOCOLS["default"], "image")
    for kind in ("box", "visible", "amodal"):
        assert result.scores[kind].values["AP"] == pytest.approx(1.0)
    assert truth.images([30]) == {}  # the image is not there: failures are drawn without it


def test_cocovid_ground_truth_knows_its_videos_and_their_ids(tmp_path):
    data = {
        "videos": [{"id": 21, "name": "b"}, {"id": 8, "name": "a"}],
        "images": [
            {
                "id": n + 1,
                "file_name": f"{video}/{frame:06d}.png",
                "height": HEIGHT,
                "width": WIDTH,
                "video_id": number,
                "frame_id": frame,
            }
            for n, (video, number, frame) in enumerate(
                [("b", 21, 3), ("b", 21, 5), ("a", 8, 0), ("a", 8, 1)]
            )
        ],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [
            {
                "id": n + 1,
                "image_id": n + 1,
                "video_id": number,
                "category_id": 1,
                "instance_id": 6,
                "iscrowd": 0,
                "segmentation": polygon(10, 10, 20, 20),
                "visible_mask": polygon(10, 10, 20, 10),
                "bbox": [10, 10, 20, 20],
                "area": 400,
            }
            for n, number in enumerate((21, 21, 8, 8))
        ],
    }
    (tmp_path / "valid.json").write_text(json.dumps(data))
    truth = read_truth(tmp_path / "valid.json")
    assert truth.videos == {21: "b", 8: "a"}
    mask = {"size": [HEIGHT, WIDTH], "counts": counts(rectangles([(10, 10, 20, 20)])).decode()}
    rows = [
        {"video_id": v, "category_id": 1, "score": 0.5, "segmentations": [mask, mask]}
        for v in (8, 21)
    ]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    predictions = formats.read_predictions(tmp_path / "r.json", truth)
    result = evaluate(truth.set, predictions, VIDEO_PROTOCOLS["default"], "video", ["amodal"])
    assert result.scores["amodal"].values["vAP"] == pytest.approx(1.0)
    assert result.tables["tracking amodal"].values["HOTA"] == pytest.approx(1.0)
