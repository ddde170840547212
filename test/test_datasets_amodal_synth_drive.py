"""AmodalSynthDrive in both layouts, with the release's known faults planted."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from datasets_scenes import CLASSES, drive, same_masks

from amodal_core.datasets.amodal_synth_drive import AmodalSynthDrive
from amodal_core.datasets.amodal_synth_drive_write import write
from amodal_core.datasets.base import Finding
from amodal_core.datasets.registry import open_dataset, recognise
from amodal_core.errors import InputError
from amodal_core.frame import Sample
from amodal_core.masks.mask_set import RleMasks

SEQUENCE = "20230702032750_SoftRainSunset_Town10HD"


@pytest.fixture
def samples(rng: np.random.Generator) -> list[Sample]:
    """Scans whose points lie in the boxes, as those of a synchronised drive do."""
    made = drive(rng, 7, f"{SEQUENCE}/front")
    for s in made:
        boxes = s.truth.boxes3d
        inside = [b[:3] + rng.uniform(-0.2, 0.2, (60, 3)) for b in boxes]
        points = np.concatenate([*inside, rng.uniform(40, 60, (50, 3))])
        s.frame.points = np.column_stack([points, np.ones(len(points))]).astype(np.float32)
    return made


@pytest.fixture
def root(samples: list[Sample], tmp_path: Path) -> Path:
    list(write(tmp_path / "asd", samples, CLASSES))
    return tmp_path / "asd"


def _json(root: Path, number: int) -> Path:
    name = f"front_full_{number:04d}_aminseg.json"
    return root / "full" / "amodal_instance_seg" / "front" / SEQUENCE / name


def _findings(path: Path) -> list[Finding]:
    return [f for f in AmodalSynthDrive(path).check() if f is not None]


def test_the_older_layout_without_camera_folders_gives_the_same(root: Path, tmp_path: Path) -> None:
    older = tmp_path / "older" / "train"
    for modality in ("amodal_instance_seg", "images"):
        source = root / "full" / modality / "front" / SEQUENCE
        shutil.copytree(source, older / modality / SEQUENCE)
    for modality in ("lidar", "bboxes"):
        shutil.copytree(root / "full" / modality, older / modality)
    assert next(recognise(tmp_path / "older"))[0] == "amodal_synth_drive"
    before, after = AmodalSynthDrive(root), open_dataset(tmp_path / "older")
    assert len(after) == len(before) == 7
    assert after.videos == before.videos
    for a, b in zip(before, after, strict=True):
        same_masks(a.truth, b.truth)
        assert np.array_equal(a.frame.points, b.frame.points)


def test_scans_and_boxes_are_turned_from_carlas_left_handed_axes(root: Path) -> None:
    path = root / "full" / "lidar" / SEQUENCE / "full_0000_Lidar.pkl"
    raw = pickle.loads(path.read_bytes())
    read = AmodalSynthDrive(root)[0].frame.points
    assert np.array_equal(read[:, [0, 2]], raw["points"][:, [0, 2]])
    assert np.array_equal(read[:, 1], -raw["points"][:, 1])


def test_boxes_given_in_the_world_are_brought_to_the_sensor(
    root: Path, samples: list[Sample]
) -> None:
    pose = np.array([[0, -1, 0, 300.0], [1, 0, 0, -50], [0, 0, 1, 2], [0, 0, 0, 1]])
    for number in range(7):
        lidar = root / "full" / "lidar" / SEQUENCE / f"full_{number:04d}_Lidar.pkl"
        scan = pickle.loads(lidar.read_bytes())
        scan["transform"] = pose.tolist()
        lidar.write_bytes(pickle.dumps(scan))
        boxes = root / "full" / "bboxes" / SEQUENCE / f"bboxess_{number:04d}.pkl"
        corners = pickle.loads(boxes.read_bytes())
        moved = {k: v @ pose[:3, :3].T + pose[:3, 3] for k, v in corners.items()}
        boxes.write_bytes(pickle.dumps(moved))
    truth = AmodalSynthDrive(root).truth(0)
    order = np.argsort(samples[0].truth.ids), np.argsort(truth.ids)
    assert np.allclose(truth.boxes3d[order[1]], samples[0].truth.boxes3d[order[0]], atol=1e-3)
    assert _findings(root) == []


def test_a_scan_of_another_moment_is_reported(root: Path) -> None:
    path = root / "full" / "lidar" / SEQUENCE / "full_0003_Lidar.pkl"
    scan = pickle.loads(path.read_bytes())
    scan["points"][:, 0] += 5
    path.write_bytes(pickle.dumps(scan))
    findings = _findings(root)
    assert [f.rule for f in findings] == ["lidar-unsynchronised"]
    assert findings[0].where == str(path)


def test_known_wrong_labels_are_found_and_mended(root: Path, tmp_path: Path) -> None:
    names = "amodal_instance_seg", "images"
    for modality in names:
        folder = root / "full" / modality / "front" / SEQUENCE
        for file in sorted(folder.glob("front_full_0006*")):
            file.rename(file.with_name(file.name.replace("_0006", "_0022")))
    path = _json(root, 22)
    content = json.loads(path.read_text())
    wrong = next(k for k, v in content.items() if v["category_id"] == 27)
    content[wrong]["category_id"] = 21
    path.write_text(json.dumps(content))
    data = AmodalSynthDrive(root)
    assert data.classes[data.truth(6).class_ids[0]] in ("truck", "person")
    assert "truck" in [data.classes[c] for c in data.truth(6).class_ids]
    found = [(f.rule, f.id) for f in data.check() if f is not None]
    assert ("wrong-label", wrong) in found
    list(data.fix(tmp_path / "clean"))
    mended = json.loads(_json(tmp_path / "clean", 22).read_text())
    assert mended[wrong]["category_id"] == 27
    # The same category elsewhere is unknown, not known to be wrong.
    other = _json(root, 0)
    content = json.loads(other.read_text())
    key = next(iter(content))
    content[key]["category_id"] = 21
    other.write_text(json.dumps(content))
    assert ("unknown-category", key) in [(f.rule, f.id) for f in _findings(root)]


def _occluded(content: dict) -> str:
    return next(k for k, v in content.items() if v["occluded"])


def _set(content: dict, field: str, value: object) -> None:
    content[_occluded(content)][field] = value


def _shrink(content: dict) -> None:
    """An amodal mask that leaves out what is seen."""
    entry = content[_occluded(content)]
    entry["amodal_mask"] = entry["occlusion_mask"]


def _duplicate(content: dict) -> None:
    first, second = list(content)[:2]
    content[second]["track_id"] = content[first]["track_id"]


def _forget(content: dict) -> None:
    del content[next(k for k in content if k != _occluded(content))]


EMPTY = {"size": [60, 100], "counts": RleMasks.empty((60, 100), 1).counts[0].decode()}
DEFECTS = {
    "empty-mask": lambda c: _set(c, "amodal_mask", EMPTY),
    "rle-broken": lambda c: _set(c, "amodal_mask", {"size": [60, 100], "counts": "PPYo1"}),
    "wrong-size": lambda c: _set(c, "amodal_mask", {"size": [1080, 1920], "counts": "PPYo1"}),
    "visible-outside-amodal": _shrink,
    "duplicate-id": _duplicate,
    "missing-field": lambda c: c[_occluded(c)].pop("track_id"),
    "unknown-instance": _forget,
}


@pytest.mark.parametrize("rule", DEFECTS)
def test_each_defect_is_found_and_mended_in_the_copy(root: Path, tmp_path: Path, rule: str) -> None:
    path = _json(root, 2)
    content = json.loads(path.read_text())
    DEFECTS[rule](content)
    path.write_text(json.dumps(content))
    findings = _findings(root)
    assert rule in [f.rule for f in findings]
    assert {f.where for f in findings} == {str(path)}
    data = AmodalSynthDrive(root)
    for index in range(len(data)):
        truth = data.truth(index)
        assert not (truth.visible.rle() - truth.amodal.rle()).areas().any()
    list(data.fix(tmp_path / "clean"))
    left = {f.rule for f in _findings(tmp_path / "clean")}
    # What the PNG shows and the JSON lost cannot be invented.
    assert left <= {"unknown-instance"}
    assert len(AmodalSynthDrive(tmp_path / "clean")) == 7


def test_broken_files_are_listed_and_the_rest_is_read(root: Path, tmp_path: Path) -> None:
    base = root / "full"
    (base / "images" / "front" / SEQUENCE / "front_full_0000_rgb.jpg").unlink()
    image = base / "images" / "front" / SEQUENCE / "front_full_0001_rgb.jpg"
    cv2.imwrite(str(image), np.zeros((30, 40, 3), np.uint8))
    _json(root, 2).write_text("{")
    lidar = base / "lidar" / SEQUENCE
    (lidar / "full_0003_Lidar.pkl").write_bytes(b"\x80\x04nonsense")
    (lidar / "full_0004_Lidar.pkl").unlink()
    labels = _json(root, 5).with_suffix(".png")
    labels.write_bytes(labels.read_bytes()[:40])
    found = [f.rule for f in _findings(root)]
    assert found == [
        "missing-image",
        "wrong-size",
        "malformed-json",
        "broken-scan",
        "missing-scan",
        "broken-image",
    ]
    data = AmodalSynthDrive(root)
    assert len(data[6].truth) == 3
    list(data.fix(tmp_path / "clean"))
    clean = AmodalSynthDrive(tmp_path / "clean")
    assert [clean.place(k).index for k in range(len(clean))] == [3, 4, 6]


def test_a_missing_frame_is_reported(root: Path) -> None:
    _json(root, 3).unlink()
    assert [f.rule for f in _findings(root)] == ["missing-frame"]


def test_a_folder_without_annotations_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="amodal_instance_seg"):
        AmodalSynthDrive(tmp_path)
