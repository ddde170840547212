"""Samples -> each format that is written -> its reader -> the same truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets_scenes import CLASSES, drive, same_masks, sample

from amodal_core.datasets import (
    amodal_synth_drive_write,
    coco,
    kins,
    kitti_write,
    labelme,
    sailvos,
    to_bag,
)
from amodal_core.datasets.base import Dataset
from amodal_core.datasets.kitti import KittiObject
from amodal_core.datasets.kitti_labels import boxes_in_lidar
from amodal_core.datasets.registry import open_dataset, recognise
from amodal_core.frame import Sample


@pytest.fixture
def singles(rng: np.random.Generator) -> list[Sample]:
    """Images of different sizes, as KITTI's are."""
    return [sample(rng, size) for size in ((60, 100), (61, 98), (60, 100))]


def _same_classes(data: Dataset, a: Sample, b: Sample, names: dict[str, str]) -> None:
    assert a.truth is not None
    assert b.truth is not None
    expected = sorted(names.get(CLASSES[c], CLASSES[c]) for c in a.truth.class_ids)
    assert sorted(data.classes[c] for c in b.truth.class_ids) == expected


@pytest.mark.parametrize(("version", "classes"), [(2019, 7), (2020, 8)])
def test_kins_keeps_masks_order_image_scan_and_camera(
    singles: list[Sample], tmp_path: Path, version: int, classes: int
) -> None:
    stems = list(kins.write(tmp_path / "kins", singles, CLASSES, version=version))
    assert stems == ["000000", "000001", "000002"]
    data = open_dataset(tmp_path / "kins")
    assert isinstance(data, kins.Kins)
    assert len(data.classes) == classes
    for before, after in zip(singles, data, strict=True):
        same_masks(before.truth, after.truth)
        _same_classes(data, before, after, {})
        assert np.array_equal(before.frame.image, after.frame.image)
        assert np.array_equal(before.frame.points, after.frame.points)
        assert before.frame.calibration is not None
        assert after.frame.calibration is not None
        assert np.allclose(
            before.frame.calibration.camera_from_lidar,
            after.frame.calibration.camera_from_lidar,
            rtol=0,
            atol=1e-15,
        )
        assert np.array_equal(before.frame.calibration.K, after.frame.calibration.K)
    assert [f for f in data.check() if f] == []


@pytest.mark.parametrize("kind", sailvos.KINDS)
def test_cocovid_keeps_masks_classes_and_identities_in_every_variant(
    rng: np.random.Generator, tmp_path: Path, kind: str
) -> None:
    samples = [*drive(rng, 8, "a"), *drive(rng, 4, "b")]
    list(sailvos.write(tmp_path / "vos", samples, CLASSES, kind=kind))
    data = open_dataset(tmp_path / "vos")
    assert isinstance(data, sailvos.SailVos)
    assert data.videos == ("a", "b")
    for before, after in zip(samples, data, strict=True):
        same_masks(before.truth, after.truth)
        _same_classes(data, before, after, {})
        assert np.array_equal(before.frame.image, after.frame.image)
        assert (after.video, after.index) == (before.video, before.index)
    identities = {
        (s.video, int(i), data.classes[c])
        for s in data
        for i, c in zip(s.truth.ids, s.truth.class_ids, strict=True)
    }
    assert len(identities) == 6
    assert [f for f in data.check() if f] == []


def test_coco_keeps_everything(rng: np.random.Generator, tmp_path: Path) -> None:
    samples = drive(rng)
    list(coco.write(tmp_path / "coco", samples, CLASSES))
    data = open_dataset(tmp_path / "coco")
    assert data.classes == CLASSES
    for before, after in zip(samples, data, strict=True):
        same_masks(before.truth, after.truth)
        assert np.array_equal(before.truth.ids, after.truth.ids)
        assert np.array_equal(before.truth.class_ids, after.truth.class_ids)
        assert before.frame.stamp == after.frame.stamp
        assert (after.video, after.index) == (before.video, before.index)
    assert [f for f in data.check() if f] == []


def test_amodal_synth_drive_keeps_masks_identities_scans_and_boxes(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    front, left = drive(rng, 7, "one/front"), drive(rng, 3, "one/left")
    for a, b in zip(front, left, strict=False):
        b.frame.points = a.frame.points  # one scan serves all cameras
    samples = [*front, *left]
    list(amodal_synth_drive_write.write(tmp_path / "asd", samples, CLASSES))
    data = open_dataset(tmp_path / "asd")
    assert data.videos == ("one/front", "one/left")
    for before, after in zip(samples, data, strict=True):
        same_masks(before.truth, after.truth)
        _same_classes(data, before, after, {"pedestrian": "person"})
        order = np.argsort(before.truth.ids), np.argsort(after.truth.ids)
        assert np.array_equal(before.truth.ids[order[0]], after.truth.ids[order[1]])
        assert np.allclose(before.truth.boxes3d[order[0]], after.truth.boxes3d[order[1]], atol=1e-4)
        assert np.array_equal(before.frame.points, after.frame.points)
        difference = np.abs(before.frame.image.astype(int) - after.frame.image.astype(int))
        assert difference.mean() < 2  # JPEG
    assert [f for f in data.check() if f] == []


def test_labelme_keeps_masks_and_classes(singles: list[Sample], tmp_path: Path) -> None:
    list(labelme.write(tmp_path / "labelme", singles, CLASSES))
    data = open_dataset(tmp_path / "labelme")
    for before, after in zip(singles, data, strict=True):
        same_masks(before.truth, after.truth)
        _same_classes(data, before, after, {})
    assert [f for f in data.check() if f] == []


def test_kitti_labels_keep_the_boxes(singles: list[Sample], tmp_path: Path) -> None:
    list(kitti_write.write(tmp_path / "kitti", singles, CLASSES))
    data = open_dataset(tmp_path / "kitti")
    assert isinstance(data, KittiObject)
    for index, before in enumerate(singles):
        labels = data.labels(index)
        boxes = boxes_in_lidar(labels, data.calibration(index))
        known = np.isfinite(before.truth.boxes3d).all(axis=1)
        assert np.allclose(boxes[known], before.truth.boxes3d[known], atol=1e-3)
        flat = np.array([x.box for x in labels])
        assert np.allclose(flat, before.truth.amodal_boxes, atol=1e-3)
        rates = before.truth.occlusion_rates
        levels = np.array([x.occluded for x in labels])
        assert (levels[rates == 0] == 0).all()
        assert (levels[rates > 0.5] == 2).all()
    assert [f for f in data.check() if f] == []


def test_a_bag_keeps_truth_and_sensors(rng: np.random.Generator, tmp_path: Path) -> None:
    samples = drive(rng, 8)
    list(coco.write(tmp_path / "coco", samples, CLASSES))

    class Drive(coco.Coco):
        """COCO's images with the scans that it cannot hold."""

        def frame(self, index: int):  # type: ignore[no-untyped-def]
            return samples[index].frame

    data = Drive(tmp_path / "coco" / coco.NAME)
    list(to_bag.write_video(data, "drive", tmp_path / "bag"))
    again = open_dataset(tmp_path / "bag")
    assert len(again) == len(samples)
    for before, after in zip(samples, again, strict=True):
        same_masks(before.truth, after.truth)
        assert np.array_equal(np.sort(before.truth.ids), np.sort(after.truth.ids))
        assert np.array_equal(before.frame.image, after.frame.image)
        assert np.array_equal(before.frame.points, after.frame.points)
        assert before.frame.stamp == after.frame.stamp
    assert [f for f in again.check() if f] == []
    # The truck is there from the beginning; the ages say so.
    last = again[len(again) - 1].truth
    assert last.ages[list(last.ids).index(11)] == len(samples)
    # Going back in a bag begins anew and gives the same.
    same_masks(again[0].truth, samples[0].truth)


def test_visible_lies_inside_amodal_in_every_written_format(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    samples = drive(rng, 8)
    list(kins.write(tmp_path / "kins", samples, CLASSES))
    list(sailvos.write(tmp_path / "vos", samples, CLASSES))
    list(coco.write(tmp_path / "coco", samples, CLASSES))
    list(amodal_synth_drive_write.write(tmp_path / "asd", samples, CLASSES))
    list(labelme.write(tmp_path / "labelme", samples, CLASSES))
    for folder in ("kins", "vos", "coco", "asd", "labelme"):
        for index in range(len(samples)):
            truth = open_dataset(tmp_path / folder).truth(index)
            assert truth is not None
            assert not (truth.visible.rle() - truth.amodal.rle()).areas().any()


def test_formats_are_recognised_from_the_file_and_from_its_folder(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    samples = drive(rng, 3)
    list(kins.write(tmp_path / "kins", samples, CLASSES))
    list(sailvos.write(tmp_path / "vos", samples, CLASSES))
    for folder, format in (("kins", "kins"), ("vos", "sailvos")):
        file = next((tmp_path / folder).glob("*.json"))
        assert list(recognise(tmp_path / folder)) == [(format, file)]
        assert list(recognise(file)) == [(format, file)]
