"""SAIL-VOS as released, its cut into clips, and per-video ground truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from datasets_scenes import CLASSES, SIZE, drive, same_masks
from pycocotools import mask as coco

from amodal_core.datasets import sailvos, sailvos_cut
from amodal_core.datasets.sailvos import SailVos
from amodal_core.errors import InputError
from amodal_core.frame import Sample
from amodal_core.masks.mask_set import RleMasks

VIDEO = "ah_3a_ext"
FRAMES, SHOT = 20, 9


def _rle(masks: RleMasks, k: int) -> dict[str, Any]:
    return {"size": list(masks.size), "counts": masks.counts[k].decode()}


@pytest.fixture
def samples(rng: np.random.Generator) -> list[Sample]:
    """20 frames of two shots: dark until frame 8, bright from frame 9 on."""
    made = drive(rng, FRAMES, VIDEO)
    for turn, s in enumerate(made):
        value = 40 if turn < SHOT else 220
        s.frame.image = np.full((*SIZE, 3), (value, value // 2, value // 3), np.uint8)
        s.frame.image[:3, :3] = turn
    return made


@pytest.fixture
def released(samples: list[Sample], tmp_path: Path) -> dict[str, Any]:
    """The released form: .bmp, files from 3 on, category ids with gaps, video ids not unique."""
    folder = tmp_path / VIDEO / "images"
    folder.mkdir(parents=True)
    images, annotations = [], []
    for turn, s in enumerate(samples):
        name = f"{VIDEO}/images/{turn + 3:06d}.bmp"
        cv2.imwrite(str(tmp_path / name), cv2.cvtColor(s.frame.image, cv2.COLOR_RGB2BGR))
        images.append(
            {"id": 70 + turn, "video_id": 0, "frame_id": turn, "file_name": name,
             "height": SIZE[0], "width": SIZE[1]}
        )  # fmt: skip
        truth = s.truth
        hidden = truth.amodal.rle() - truth.visible.rle()
        boxes = coco.toBbox(truth.amodal.rle().coco()), coco.toBbox(truth.visible.rle().coco())
        for k in range(len(truth)):
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": 70 + turn,
                    "category_id": 10 * (int(truth.class_ids[k]) + 1),
                    "instance_id": int(truth.ids[k]),
                    "obj_id": int(truth.ids[k]),
                    "model_id": 5,
                    "bbox": boxes[0][k].tolist(),
                    "bbox_visible": boxes[1][k].tolist(),
                    "segmentation": _rle(truth.amodal.rle(), k),
                    "visible_mask": _rle(truth.visible.rle(), k),
                    "invisible_mask": _rle(hidden, k),
                    "area": int(truth.amodal.rle().areas()[k]),
                    "area_visible": int(truth.visible.rle().areas()[k]),
                    "iscrowd": 0,
                    "occlu_depth": int(truth.occluders[k].sum()),
                    "occlude_rate": float(truth.occlusion_rates[k]),
                }
            )
    videos = [{"id": 0, "vid_name": VIDEO, "num_frames": FRAMES, "num_objs": 3}]
    categories = [{"id": 10 * k, "name": n} for k, n in enumerate(CLASSES, 1)]
    return {
        "path": tmp_path / "train.json",
        "videos": videos,
        "images": images,
        "annotations": annotations,
        "categories": categories,
        "models": [],
    }


def _open(content: dict[str, Any]) -> SailVos:
    path: Path = content["path"]
    path.write_text(json.dumps({k: v for k, v in content.items() if k != "path"}))
    return SailVos(path)


def _rules(data: SailVos) -> list[str]:
    return [f.rule for f in data.check() if f is not None]


def test_the_released_form_is_read(released: dict[str, Any], samples: list[Sample]) -> None:
    data = _open(released)
    assert data.videos == (VIDEO,)
    for before, after in zip(samples, data, strict=True):
        same_masks(before.truth, after.truth)
        assert np.array_equal(np.sort(before.truth.ids), np.sort(after.truth.ids))
        assert np.array_equal(before.frame.image, after.frame.image)
    assert _rules(data) == []


def test_png_images_are_found_where_the_json_says_bmp(released: dict[str, Any]) -> None:
    for path in (released["path"].parent / VIDEO / "images").glob("*.bmp"):
        cv2.imwrite(str(path.with_suffix(".png")), cv2.imread(str(path)))
        path.unlink()
    assert _rules(_open(released)) == []


def test_a_frames_score_is_that_of_the_published_cut(rng: np.random.Generator) -> None:
    a, b = rng.integers(0, 255, (2, 30, 40, 3), np.uint8)
    # Written out as the definition says: RGB where OpenCV is told BGR, mean of the channels' means.
    channels = [
        np.abs(
            cv2.split(cv2.cvtColor(a, cv2.COLOR_BGR2HSV))[c].astype(int)
            - cv2.split(cv2.cvtColor(b, cv2.COLOR_BGR2HSV))[c].astype(int)
        ).sum()
        / (30 * 40)
        for c in range(3)
    ]
    assert sailvos_cut.frame_score(a, b) == pytest.approx(sum(channels) / 3)


def _flat(values: list[int]) -> list[np.ndarray]:
    return [np.full((8, 8, 3), v, np.uint8) for v in values]


def test_cuts_keep_their_distance_from_each_other_and_from_the_end() -> None:
    # Frame 5 begins a shot. Frame 8 is too near to it, frame 16 too near to the end (22 frames).
    values = [10] * 5 + [250] * 3 + [10] * 8 + [250] * 6
    assert sailvos_cut.cuts(_flat(values), len(values)) == [5]
    values = [10] * 5 + [250] * 10 + [10] * 7
    assert sailvos_cut.cuts(_flat(values), len(values)) == [5, 15]
    assert sailvos_cut.cuts(_flat([10] * 4 + [250] * 9), 13) == []


def test_clips_are_named_by_the_frame_that_ends_them() -> None:
    clips = sailvos_cut.clips_of("v", 20, [9])
    assert [tuple(c) for c in clips] == [("v__9", 0, 9), ("v__19", 9, 20)]


@pytest.mark.parametrize("given", [False, True])
def test_the_cut_by_content_and_by_structure_agree(
    released: dict[str, Any], samples: list[Sample], tmp_path: Path, given: bool
) -> None:
    data = _open(released)
    structure = None
    if given:
        names = [f"{k + 3:06d}.bmp" for k in range(FRAMES)]
        file = tmp_path / "structure.json"
        content = {f"{VIDEO}__9": names[:9], f"{VIDEO}__19": names[9:], f"{VIDEO}__15": []}
        file.write_text(json.dumps(content | {VIDEO: names[:2]}))
        structure = sailvos_cut.read_structure(file)
    before = {p: p.read_bytes() for p in (tmp_path / VIDEO).rglob("*.bmp")}
    clips = list(sailvos_cut.cut(data, tmp_path / "cut", structure))
    assert clips == [f"{VIDEO}__9", f"{VIDEO}__19"]
    # The originals are not moved.
    assert {p: p.read_bytes() for p in (tmp_path / VIDEO).rglob("*.bmp")} == before
    for kind in sailvos.KINDS:
        made = SailVos(tmp_path / "cut" / f"{kind}.json")
        assert _rules(made) == []
        assert made.classes == CLASSES
        first = made.in_video(f"{VIDEO}__9")
        assert [made.place(i).index for i in first] == list(range(9))
        assert [made.images[i]["id"] for i in first] == list(range(70, 79))
        for turn, index in enumerate([*first, *made.in_video(f"{VIDEO}__19")]):
            expected = samples[turn].truth
            kept = np.asarray(expected.occlusion_rates) <= 0.75
            whole, seen = expected.amodal.rle()[kept], expected.visible.rle()[kept]
            truth = made.truth(index)
            assert sorted(truth.amodal.counts) == sorted(whole.counts)
            assert sorted(truth.visible.counts) == sorted(seen.counts)
            assert np.array_equal(made[index].frame.image, samples[turn].frame.image)
        # An object has another identity in every clip.
        ids = [{int(i) for k in made.in_video(c) for i in made.truth(k).ids} for c in made.videos]
        assert ids[0].isdisjoint(ids[1])


def test_a_structure_of_another_file_is_an_error(released: dict[str, Any], tmp_path: Path) -> None:
    data = _open(released)
    with pytest.raises(InputError, match="000999"):
        list(sailvos_cut.cut(data, tmp_path / "cut", {f"{VIDEO}__9": ["000999.bmp"]}))
    assert not list((tmp_path / "cut").glob("*.json"))


def test_per_video_truth_has_lists_as_long_as_the_video(
    released: dict[str, Any], samples: list[Sample], tmp_path: Path
) -> None:
    data = _open(released)
    for masks in ("amodal", "visible"):
        path = tmp_path / f"{masks}.json"
        assert list(sailvos_cut.write_video_truth(path, data, masks)) == [VIDEO]
        content = json.loads(path.read_text())
        video = content["videos"][0]
        assert (video["length"], video["width"], video["height"]) == (FRAMES, SIZE[1], SIZE[0])
        entries = {a["instance_id"]: a for a in content["annotations"]}
        assert set(entries) == {11, 4, 7}
        for turn, s in enumerate(samples):
            chosen = (s.truth.amodal if masks == "amodal" else s.truth.visible).rle()
            for number, entry in entries.items():
                assert len(entry["segmentations"]) == FRAMES
                row = np.flatnonzero(s.truth.ids == number)
                if not len(row) or not chosen.areas()[row[0]]:
                    assert entry["segmentations"][turn] is None
                    assert entry["areas"][turn] is None
                else:
                    counts = entry["segmentations"][turn]["counts"]
                    assert counts == chosen.counts[row[0]].decode()
                    rate = s.truth.occlusion_rates[row[0]]
                    assert entry["occlude_rate"][turn] == pytest.approx(float(rate))


def _swap(content: dict[str, Any]) -> None:
    content["images"][4]["frame_id"], content["images"][5]["frame_id"] = 5, 4


def _rename(content: dict[str, Any]) -> None:
    last = [a for a in content["annotations"] if a["instance_id"] == 11][-1]
    last["category_id"] = 10


def _rate(content: dict[str, Any]) -> None:
    content["annotations"][0]["occlude_rate"] = 0.9


def _outside(content: dict[str, Any]) -> None:
    a = content["annotations"]
    a[0]["visible_mask"] = a[1]["segmentation"]


@pytest.mark.parametrize(
    ("rule", "harm"),
    [
        ("stamps-backwards", _swap),
        ("identity-changes", _rename),
        ("occlusion-rate", _rate),
        ("visible-outside-amodal", _outside),
    ],
)
def test_each_defect_is_found(released: dict[str, Any], rule: str, harm: Any) -> None:
    harm(released)
    assert rule in _rules(_open(released))


@pytest.mark.parametrize("kind", sailvos.KINDS)
def test_the_copy_of_every_variant_is_clean(
    samples: list[Sample], tmp_path: Path, kind: str
) -> None:
    list(sailvos.write(tmp_path / "vos", samples, CLASSES, kind=kind))
    path = tmp_path / "vos" / f"{kind}.json"
    content = json.loads(path.read_text())
    a, b = content["annotations"][0], content["annotations"][1]
    key = {"amodal": "segm_visible", "visible": "segmentation"}.get(kind, "visible_mask")
    other = {"amodal": "segmentation", "visible": "segm_amodal"}.get(kind, "amodal_mask")
    a[key] = b[other]
    if kind in ("joint", "both_bbox"):
        a["segmentation"] = [a["segmentation"][0], b["segmentation"][0]]
    content["annotations"][2]["category_id"] = 99
    path.write_text(json.dumps(content))
    data = SailVos(path)
    assert {"visible-outside-amodal", "unknown-category"} <= set(_rules(data))
    list(data.fix(tmp_path / "clean"))
    clean = SailVos(tmp_path / "clean" / path.name)
    assert _rules(clean) == []
    assert len(clean) == FRAMES
    assert len(clean.truth(0)) == len(samples[0].truth) - 1
