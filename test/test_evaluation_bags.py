"""Bags of truth and of tracks as the two sides of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import HEIGHT, WIDTH, rectangles

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.messages import instances_message
from amodal_core.bags.writer import BagWriter
from amodal_core.errors import InputError
from amodal_core.evaluation import formats
from amodal_core.evaluation.protocols import VIDEO_PROTOCOLS
from amodal_core.evaluation.run import evaluate
from amodal_core.evaluation.truth import read_truth, with_classes_of
from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks


def tracks(masks: list[np.ndarray], class_ids: list[int]) -> Tracks:
    amodal = RleMasks.from_dense(np.stack(masks))
    n = len(masks)
    return Tracks(
        size=(HEIGHT, WIDTH),
        amodal_boxes=amodal.boxes(),
        visible_boxes=amodal.boxes(),
        scores=np.full(n, 0.9, np.float32),
        class_ids=np.array(class_ids),
        amodal=amodal,
        visible=amodal,
        occlusion_rates=np.zeros(n, np.float32),
        depths=np.full(n, 8.0, np.float32),
        occluders=np.zeros((n, n), bool),
        ids=np.arange(n),
        ages=np.ones(n, np.int64),
        coasted=np.zeros(n, bool),
    )


def write_bag(
    path: Path,
    topic: str | Sequence[str],
    stamps: list[int],
    class_ids: list[int],
    listed: bool = True,
) -> Path:
    """Moving objects of these classes; messages of earlier versions do not list those there are."""
    factory = RosbagsFactory()
    topics = [topic] if isinstance(topic, str) else topic
    with BagWriter(path) as bag:
        for topic in topics:
            bag.add_topic(topic, "amodal_msgs/msg/AmodalInstanceArray")
        for k, stamp in enumerate(stamps):
            masks = [rectangles([(5 + 30 * j + k, 5, 20, 20)]) for j in range(len(class_ids))]
            message = instances_message(
                factory,
                tracks(masks, class_ids),
                stamp=stamp,
                frame_id="camera",
                classes=["car", "van", "other"],
            )
            message.classes = message.classes if listed else []
            for topic in topics:
                bag.write(topic, message, stamp)
    return path


SECOND = 1_000_000_000


def test_a_bag_is_compared_by_stamp_and_frames_without_truth_are_left_out(tmp_path):
    truth = read_truth(
        write_bag(tmp_path / "gt.mcap", "/kitti/ground_truth", [SECOND, 2 * SECOND], [0, 1])
    )
    stamps = [SECOND, 2 * SECOND, 3 * SECOND]
    write_bag(tmp_path / "out" / "tracks.mcap", "/tracks", stamps, [0, 1])
    # The folder that replay wrote, and the bag itself.
    for dt in (tmp_path / "out", tmp_path / "out" / "tracks.mcap"):
        predictions = formats.read_predictions(dt, truth)
        assert len(predictions) == 4
        result = evaluate(truth.set, predictions, VIDEO_PROTOCOLS["default"], "video")
        assert result.scores["amodal"].values["vAP"] == pytest.approx(1.0)
        assert result.tables["tracking amodal"].values["IDF1"] == pytest.approx(1.0)


def test_a_bag_of_another_drive_is_an_error(tmp_path):
    truth = read_truth(write_bag(tmp_path / "gt.mcap", "/ground_truth", [SECOND], [0]))
    write_bag(tmp_path / "t.mcap", "/tracks", [5 * SECOND], [0])
    with pytest.raises(InputError, match="no stamp of its tracks is in the ground truth"):
        formats.read_predictions(tmp_path / "t.mcap", truth)
    with pytest.raises(InputError, match="0 topics named ground_truth"):
        read_truth(tmp_path / "t.mcap")


def test_classes_that_a_bag_never_shows_are_added_not_refused(tmp_path):
    """Where it lists none, `other`, predicted only, is no mistake and counts in no AP."""
    truth = read_truth(write_bag(tmp_path / "gt.mcap", "/ground_truth", [SECOND], [0], False))
    write_bag(tmp_path / "t.mcap", "/tracks", [SECOND], [0, 2])
    predictions = formats.read_predictions(tmp_path / "t.mcap", truth)
    with pytest.raises(InputError, match="other"):
        evaluate(truth.set, predictions, VIDEO_PROTOCOLS["default"], "video")
    wider, absent = with_classes_of(truth, predictions)
    assert absent == ["other"]
    result = evaluate(wider.set, predictions, VIDEO_PROTOCOLS["default"], "video")
    assert result.scores["amodal"].values["vAP"] == pytest.approx(1.0)


def test_classes_that_a_bag_lists_are_its_truths_whether_it_shows_them_or_not(tmp_path):
    truth = read_truth(write_bag(tmp_path / "gt.mcap", "/ground_truth", [SECOND], [0]))
    assert truth.set.classes == ("car", "van", "other")
    predictions = formats.read_predictions(
        write_bag(tmp_path / "t.mcap", "/tracks", [SECOND], [0, 2]), truth
    )
    result = evaluate(truth.set, predictions, VIDEO_PROTOCOLS["default"], "video")
    assert result.scores["amodal"].values["vAP"] == pytest.approx(1.0)


def test_a_truth_is_refused_as_its_own_predictions_by_whatever_path(tmp_path, monkeypatch):
    """A file, a folder of a data set, and a bag; the numbers would be those of a perfect model."""
    bag = write_bag(tmp_path / "drive.mcap", "/ground_truth", [SECOND], [0])
    annotations = tmp_path / "set" / "annotations.json"
    annotations.parent.mkdir()
    annotations.write_text("{}")
    (tmp_path / "link").symlink_to(annotations.parent)
    monkeypatch.chdir(tmp_path)
    for gt, dt in (
        (bag, bag),
        (bag, "drive.mcap"),
        (annotations, annotations),
        (annotations.parent, "set/"),
        (annotations.parent, "link"),
    ):
        with pytest.raises(InputError, match="given as ground truth and as predictions"):
            formats.check_apart(gt, dt)
    formats.check_apart(annotations.parent, annotations)


def test_predictions_beside_the_truth_are_what_is_evaluated(tmp_path):
    """In one bag, or in the folder of the data set; one path then stands for both."""
    both = write_bag(tmp_path / "both.mcap", ("/ground_truth", "/kitti/tracks"), [SECOND], [0, 1])
    formats.check_apart(both, both)
    assert len(formats.read_predictions(both, read_truth(both))) == 2
    for name in ("visible.json", "amodal.json", "tracks.mcap"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("[]")
        formats.check_apart(tmp_path / name, tmp_path / name)
