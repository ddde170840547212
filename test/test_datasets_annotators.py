"""What annotation tools are given: CVAT's XML and FiftyOne's folder, read by others' code."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest
from box_scenes import PAIR, BoxedModel
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from amodal_core.bags.messages import read_tracks
from amodal_core.bags.reader import BagReader
from amodal_core.datasets import coco, cvat, fiftyone
from amodal_core.datasets.registry import open_dataset
from amodal_core.errors import InputError
from amodal_core.frame import Frame, Sample, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.pipeline import Pipeline
from amodal_core.replay import ReplayOptions, replay

CLASSES = ("car", 'van "<big>"')


def sample(tracks=PAIR, number=0):
    image = np.full((40, 60, 3), 10 * number, np.uint8)
    return Sample(Frame(number, image), tracks, f"f{number}")


def wholly_hidden():
    """Two objects, of which the second does not show at all."""
    hidden = PAIR[np.array([0, 1])]
    hidden.class_ids = np.array([0, 1])
    hidden.visible = RleMasks.concatenated([hidden.visible[[0]], RleMasks.empty((40, 60), 1)])
    hidden.occlusion_rates = np.array([0, 1], np.float32)
    return hidden


def decoded(element, size=(40, 60)):
    """A mask element by pycocotools: columns of the transposed crop are rows of the crop."""
    left, top, width, height = (int(element.get(k)) for k in ("left", "top", "width", "height"))
    counts = [int(n) for n in element.get("rle").split(", ")]
    runs = coco_mask.frPyObjects({"counts": counts, "size": [width, height]}, width, height)
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = coco_mask.decode(runs).T > 0
    return mask


def test_cvat_has_both_masks_of_an_object_under_the_same_number(tmp_path):
    samples = [sample(), sample(wholly_hidden(), 1)]
    assert list(cvat.write(tmp_path / "out", samples, CLASSES)) == ["000000.png", "000001.png"]
    root = ET.parse(tmp_path / "out" / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    labels = [label.findtext("name") for label in root.findall("meta/task/labels/label")]
    assert labels == ["car", "car_visible", 'van "<big>"', 'van "<big>"_visible']
    first, second = root.findall("image")
    assert (first.get("width"), first.get("height")) == ("60", "40")
    masks = {(m.get("label"), m.findtext("attribute")): m for m in first}
    for place, track in enumerate(("3", "65540")):
        for ending, kind in (("", PAIR.amodal), ("_visible", PAIR.visible)):
            mask = masks[f"car{ending}", track]
            np.testing.assert_array_equal(decoded(mask), kind.dense()[place])
            assert mask.get("occluded") == str(place)
    assert [m.get("label") for m in second] == ['van "<big>"', "car", "car_visible"]
    assert [m.get("z_order") for m in second] == ["0", "1", "1"], "the nearer lies higher"
    image = cv2.imread(str(tmp_path / "out" / "images" / first.get("name")))
    np.testing.assert_array_equal(image, samples[0].frame.image)


def test_runs_go_row_by_row_and_begin_with_zeros():
    assert cvat.row_runs(np.array([[1, 1, 0], [0, 1, 0]], bool)) == [0, 2, 2, 1, 1]
    assert cvat.row_runs(np.array([[0, 1], [1, 1]], bool)) == [1, 3]


def test_fiftyone_gets_a_coco_file_a_kind_of_mask_with_the_same_ids(tmp_path):
    out = tmp_path / "out"
    assert len(list(fiftyone.write(out, [sample(), sample(wholly_hidden(), 1)], CLASSES))) == 2
    assert sorted(p.name for p in out.iterdir()) == ["data", "labels.json", "visible.json"]
    amodal, visible = COCO(out / "labels.json"), COCO(out / "visible.json")
    assert (sorted(amodal.anns), sorted(visible.anns)) == ([1, 2, 3, 4], [1, 2, 3])
    for index, kind in ((amodal, PAIR.amodal), (visible, PAIR.visible)):
        for number in (1, 2):
            annotation = index.anns[number]
            mask = kind.dense()[number - 1]
            np.testing.assert_array_equal(index.annToMask(annotation) > 0, mask)
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == box
            assert annotation["area"] == mask.sum()
    names = ("track_id", "index", "occlude_rate", "depth", "iscrowd")
    extra = [amodal.anns[2][k] for k in names]
    assert extra == [65_540, 65_540, 0.5, 16.0, 0], "FiftyOne calls a track an index"
    assert [c["name"] for c in amodal.dataset["categories"]] == list(CLASSES)
    for image in amodal.dataset["images"]:
        assert (out / "data" / image["file_name"]).exists()


def test_coco_says_the_track_where_datumaro_and_cvat_look_for_it(tmp_path):
    assert list(coco.write(tmp_path / "out", [sample()], CLASSES)) == ["000000.png"]
    index = COCO(tmp_path / "out" / coco.NAME)
    assert [a["attributes"] for a in index.anns.values()] == [{"track_id": 3}, {"track_id": 65_540}]


@pytest.mark.parametrize("writer", [cvat, fiftyone])
def test_frames_without_objects_are_written_and_without_images_refused(writer, tmp_path):
    empty = sample(Tracks.empty((40, 60)))
    assert list(writer.write(tmp_path / "a", [empty, sample(None)], CLASSES))
    with pytest.raises(InputError, match="a frame without an image"):
        list(writer.write(tmp_path / "b", [Sample(Frame(0), PAIR, "f")], CLASSES))


def test_tracks_of_a_replay_are_a_data_set_that_can_be_exported(mini_bag, tmp_path):
    replay(mini_bag, tmp_path, Pipeline(BoxedModel()), ReplayOptions(video=False, copy=True))
    with BagReader(tmp_path / "tracks.mcap") as bag:
        expected = [read_tracks(m.message) for m in bag.messages(["/amodal/tracks"])]
    data = open_dataset(tmp_path / "tracks.mcap", "tracks")
    assert (len(data), data.classes) == (5, BoxedModel.classes)
    for read, tracks in zip(data, expected, strict=True):
        assert read.frame.image is not None
        assert read.truth.ids.tolist() == tracks.ids.tolist()
        assert read.truth.amodal.rle().counts == tracks.amodal.rle().counts
        assert read.truth.visible.rle().counts == tracks.visible.rle().counts
    list(fiftyone.write(tmp_path / "exported", data, data.classes))
    assert len(COCO(tmp_path / "exported" / "labels.json").anns) == 10


def test_tracks_without_their_images_say_how_to_get_them(mini_bag, tmp_path):
    replay(mini_bag, tmp_path, Pipeline(BoxedModel()), ReplayOptions(video=False))
    with pytest.raises(InputError, match=r"no /amodal/image/compressed in it.*with --copy"):
        open_dataset(tmp_path / "tracks.mcap", "tracks")
