"""`amodal infer --tracks`: lists of visible tracks become lists of whole ones."""

from __future__ import annotations

import json
import weakref

import numpy as np
import pytest
from moving_scenes import CLASSES, Scene
from pycocotools import mask as coco
from typer.testing import CliRunner

from amodal_core import track_inference
from amodal_core.datasets import amodal_synth_drive_write
from amodal_core.datasets.registry import open_dataset
from amodal_core.errors import InputError
from amodal_core.evaluation import formats
from amodal_core.evaluation.protocols import VIDEO_PROTOCOLS
from amodal_core.evaluation.run import evaluate
from amodal_core.evaluation.sets import ImageRecord, empty_set
from amodal_core.evaluation.truth import Truth, index_of, read_truth
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.s_amodal import SAModal, SAModalConfig
from amodal_core.track_inference import RESULTS, complete_tracks
from amodal_core.tracking.hidden_objects import HiddenObjects
from amodal_core.tracking.points import LucasKanade
from amodal_ros.cli.main import app

FRAMES = 24  # the square is hidden from 18 to 22


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """A drive on the disk, and the list of what shows in it, as GenVIS writes one."""
    root = tmp_path_factory.mktemp("drives")
    list(amodal_synth_drive_write.write(root / "asd", Scene().samples(FRAMES), CLASSES))
    data = open_dataset(root / "asd")
    tracks = {}
    for k in range(len(data)):
        truth = data.truth(k)
        for n, number in enumerate(truth.ids.tolist()):
            row = tracks.setdefault(number, (data.classes[truth.class_ids[n]], {}))
            row[1][k] = truth.visible.counts[n].decode()
    index = index_of(data)
    names = {k: c for c, k in index.category_ids.items()}
    nothing = coco.encode(np.zeros((120, 240), np.uint8, order="F"))["counts"].decode()
    rows = [
        {
            "video_id": 1, "category_id": names[data.classes.index(name)], "score": 0.5,
            "segmentations": [
                {"size": [120, 240], "counts": found.get(k, nothing)}
                for k in range(FRAMES)
            ],
        }
        for name, found in tracks.values()
    ]  # fmt: skip
    path = root / "genvis.json"
    path.write_text(json.dumps(rows))
    return data, path


class Oracle:
    """Knows the whole masks of what shows, as a perfect model of single frames would."""

    name = "oracle"

    def __init__(self, data):
        self.truth = {data.frame(k).stamp: data.truth(k) for k in range(len(data))}
        self.clips = []

    def complete(self, frames, seen, report=None):
        self.clips.append(len(frames))
        memory = HiddenObjects(LucasKanade())
        found = []
        for k, (frame, one) in enumerate(zip(frames, seen, strict=True)):
            truth = self.truth[frame.stamp]
            order = [truth.visible.counts.index(c) for c in one.visible.counts]
            one.amodal = truth.amodal[np.array(order, np.int64)]
            one.scores = np.full(len(one), 0.6 if k % 2 else 0.8, np.float32)
            found.append(memory.add_to_tracks(frame, one))
        return found


def done(model, drive, out):
    return complete_tracks(model, drive[0], drive[1], out, {"model": model.name}, lambda *_: None)


def test_whole_masks_go_on_through_the_occlusion(drive, tmp_path):
    path, _ = done(Oracle(drive[0]), drive, tmp_path)
    assert path == tmp_path / RESULTS
    assert [p.name for p in tmp_path.iterdir()] == [RESULTS]
    given, rows = json.loads(drive[1].read_text()), json.loads(path.read_text())
    assert [(r["video_id"], r["category_id"]) for r in rows] == [
        (r["video_id"], r["category_id"]) for r in given
    ]
    assert all(len(r["segmentations"]) == FRAMES for r in rows)
    assert all(all(r["segmentations"]) for r in rows)  # the hidden frames are there, too
    assert rows[0]["score"] == pytest.approx(0.7, abs=0.011)
    truth = read_truth(drive[0].path)
    protocol = VIDEO_PROTOCOLS["default"]

    def scored(file):
        found = formats.read_predictions(file, truth, "amodal")
        return evaluate(truth.set, found, protocol, "video", ["amodal"]).scores["amodal"].values

    assert scored(path)["vAP"] > 0.99 > scored(drive[1])["vAP"]


def test_few_frames_of_a_video_are_in_memory_at_once(drive, tmp_path, monkeypatch):
    alive = weakref.WeakSet()
    most = [0]
    model = Oracle(drive[0])
    read = type(drive[0]).frame

    def counted(self, index):
        frame = read(self, index)
        alive.add(frame)
        most[0] = max(most[0], len(alive))
        return frame

    monkeypatch.setattr(type(drive[0]), "frame", counted)
    monkeypatch.setattr(track_inference, "_HELD", 4)
    done(model, drive, tmp_path)
    assert 4 <= most[0] <= 7  # those held, the one being completed and what points are followed in


def test_a_killed_run_goes_on_with_the_next_video_and_another_runs_parts_are_refused(
    drive, tmp_path, monkeypatch
):
    class Killed(Oracle):
        def complete(self, frames, seen, report=None):
            raise KeyboardInterrupt

    def killed(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        done(Killed(drive[0]), drive, tmp_path)
    assert not list(tmp_path.iterdir())  # in its first video: nothing to go on with
    with monkeypatch.context() as at_the_end:
        at_the_end.setattr(track_inference, "write_video_results", killed)
        with pytest.raises(KeyboardInterrupt):
            done(Oracle(drive[0]), drive, tmp_path)
    with pytest.raises(InputError, match="unfinished run of another model"):
        complete_tracks(Oracle(drive[0]), *drive, tmp_path, {"model": "x"}, lambda *_: None)
    rest = Oracle(drive[0])
    done(rest, drive, tmp_path)
    assert rest.clips == []
    assert [path.name for path in tmp_path.iterdir()] == [RESULTS]


def test_the_command_completes_a_list_and_its_result_is_evaluated(drive, tmp_path):
    data, path = drive
    model = SAModal(SAModalConfig(data.classes, size="tiny", image_size=128))
    model.sam.mask_decoder.iou_prediction_head.proj_out.bias.data.fill_(0.7)
    info = CheckpointInfo("s_amodal", model.config_json(), data.classes)
    save_checkpoint(tmp_path / "m.safetensors", model, info)
    told = ["infer", str(data.path), "--out", str(tmp_path / "out"), "--tracks", str(path)]
    chosen = ["--model", "s_amodal", "--checkpoint", str(tmp_path / "m.safetensors")]
    result = CliRunner().invoke(app, [*told, *chosen])
    assert result.exit_code == 0, result.output
    written = tmp_path / "out" / RESULTS
    assert str(written) in result.output
    judged = CliRunner().invoke(
        app,
        ["eval", "video", "--gt", str(data.path), "--dt", str(written), "--kind", "amodal",
         "--out", str(tmp_path / "eval")],
    )  # fmt: skip
    assert judged.exit_code == 0, judged.output
    for more, said in (([], "fused finds its objects by itself"),
                       (["--model", "bogus"], "no model 'bogus'"),
                       ([*chosen, "--map", "a=b", "--track"], "not together with --map, --track"),
                       ([*chosen, "--boxes", "truth"], "not together with --boxes truth"),
                       ([*chosen, "--set", "detector=geometric"], "nothing to find")):  # fmt: skip
        wrong = CliRunner().invoke(app, [*told, *more])
        assert isinstance(wrong.exception, InputError)
        assert said in str(wrong.exception)


def test_genvis_lists_come_back_as_they_were(tmp_path):
    """Full HD, a hundred frames, "PPYo1" where an object is not, entries of both videos mixed."""
    size, names = (1080, 1920), {1: "a", 2: "b"}
    images = [
        ImageRecord(100 * (v - 1) + f, *size, f"{f}", names[v], f)
        for v in names
        for f in range(100)
    ]
    truth = Truth(empty_set(images, ("car", "truck")), {26: 0, 27: 1}, names)
    rows = []
    for n, video in enumerate((2, 1, 2)):
        masks = []
        for f in range(100):
            mask = np.zeros(size, np.uint8, order="F")
            if 10 * n <= f < 40 and f % 3:
                mask[100 + f : 300 + f, 50 * n : 50 * n + 90 + f] = 1
            masks.append({"size": list(size), "counts": coco.encode(mask)["counts"].decode()})
        assert masks[99]["counts"] == "PPYo1"
        rows.append({"video_id": video, "score": 0.25 + n / 4, "category_id": 26 + n % 2,
                     "segmentations": masks})  # fmt: skip
    (tmp_path / "genvis.json").write_text(json.dumps(rows))
    found = formats.read_predictions(tmp_path / "genvis.json", truth, "visible")
    assert len(found) == sum(s["counts"] != "PPYo1" for r in rows for s in r["segmentations"])
    formats.write_video_results(found, tmp_path / "again.json", "visible", truth)
    again = json.loads((tmp_path / "again.json").read_text())
    for row, back in zip(rows, again, strict=True):
        assert {k: back[k] for k in ("video_id", "category_id", "score")} == {
            k: row[k] for k in ("video_id", "category_id", "score")
        }
        assert back["segmentations"] == [
            None if s["counts"] == "PPYo1" else s for s in row["segmentations"]
        ]
