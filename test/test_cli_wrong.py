"""What is typed wrongly: one line that names the place, exit code 2, and nothing is left behind."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from amodal_core.bags.reader import BagReader
from amodal_core.bags.writer import BagWriter
from amodal_ros.cli import main

GEOMETRIC = "--model geometric --no-video"
# Words with {W} for the folder and {BAG} for a good bag, and what the line says.
WRONG = [
    (
        "replay {W}/empty --out {W}/out " + GEOMETRIC,
        "/empty: there is no bag in it (give a bag's folder",
    ),
    ("replay {W}/film.mp4 --out {W}/out " + GEOMETRIC, "/film.mp4: not a bag (give a bag's folder"),
    ("replay {W}/zero.mcap --out {W}/out " + GEOMETRIC, "/zero.mcap: .* seems to be empty"),
    ("replay {W}/text.mcap --out {W}/out " + GEOMETRIC, "/text.mcap: cannot open the bag"),
    ("replay {W}/text.db3 --out {W}/out " + GEOMETRIC, "/text.db3: cannot open the bag"),
    ("replay {W}/transforms --out {W}/out " + GEOMETRIC, "/transforms: no sensor_msgs/msg/Image"),
    ("replay {BAG} --out {W}/file " + GEOMETRIC, "/file: cannot make the folder: File exists"),
    ("replay {BAG} --out {W}/file/out " + GEOMETRIC, "/file/out: cannot make the folder"),
    ("replay {BAG} --out {BAG} " + GEOMETRIC, "the results would lie in the bag itself"),
    ("replay {W}/tracks.mcap --out {W} " + GEOMETRIC, "the results would lie in the bag itself"),
    ("replay {BAG} --out {W}/out --motion fast", "motion: input should be 'auto' or 'off'"),
    ("replay {BAG} --out {W}/out --extrinsics 1,2,3", "extrinsics: .* 7 items"),
    ("replay {BAG} --out {W}/out --extrinsics x", "--extrinsics: 'x' is not numbers"),
    ("replay {BAG} --out {W}/out --calibration {W}/a.yaml " + GEOMETRIC, "/a.yaml: neither"),
    ("replay {BAG} --out {W}/out --checkpoint {W}/file " + GEOMETRIC, "takes no checkpoint"),
    ("replay {BAG} --out {W}/out --model geometric --set min_score=30", "min_score: input should"),
    ("replay {BAG} --out {W}/out --device gpu " + GEOMETRIC, "device gpu: there is no device"),
    ("replay {BAG} {W}/transforms --out {W}/out --device gpu " + GEOMETRIC, "device gpu: there is"),
    ("infer {BAG} --out {W}/out --device gpu --model geometric", "device gpu: there is no device"),
    ("eval live {BAG} --out {W}/out --device gpu", "device gpu: there is no device"),
    ("eval live {W}/text.mcap --out {W}/out", "/text.mcap: cannot open the bag"),
    ("eval bag --gt {W}/transforms --dt {BAG} --out {W}/out", "/transforms: 0 topics named"),
    ("eval bag --gt {W}/empty --dt {BAG} --out {W}/out", "/empty: this is no bag"),
    (
        "eval image --gt {W}/a.json --dt {W}/file --out {W}/out",
        "/a.json: no format that is known",
    ),
    ("eval image --gt {W}/a.json --dt {W}/a.json --out {W}/out", "/a.json: given as ground truth"),
    ("eval video --gt {W}/none --dt {W}/none --out {W}/out", "/none: there is no such"),
    ("eval bag --gt {BAG} --dt {BAG} --out {W}/out", "given as ground truth and as predictions"),
    ("eval compare {W}/empty {W}/labels --out {W}/out", "/empty/metrics.json: no evaluation"),
    ("eval compare {W}/empty {W}/labels/../empty", "/empty: given twice"),
    ("data check {W}/empty", "/empty: no format that is known"),
    ("data show {W}/a.json --out {W}/out", "/a.json: no format that is known"),
    ("data convert {W}/out {W}/empty --to cvat", "/out: there is no such file or folder"),
    ("infer {W}/empty --out {W}/out", "/empty: no format that is known"),
    ("data convert {BAG} {W}/out --to cvat --kind joint", "--kind: cvat takes none .* video-truth"),
    ("data convert {BAG} {W}/out --to cocovid --kind none", "no variant 'none' .*both_bbox"),
    ("data convert {BAG} {W}/out --to video-truth --kind joint", "--kind: no variant 'joint'"),
    ("data convert {BAG} {W}/out --to coco --class car=auto", "--class: coco takes none"),
    ("data convert {BAG} {W}/out --to bag --structure {W}/a.json", "--structure: bag takes none"),
    ("data convert {BAG} {W}/out --to nonsense", "no format 'nonsense' to write .*there are: kins"),
    ("data convert {BAG} {W}/file/out --to kins", "/file: cannot make the folder: File exists"),
    ("data show {BAG} --out {W}/file", "/file/sheet_000.png: cannot write: File exists"),
    ("data stats {BAG} --out {W}/file", "/file: cannot make the folder: File exists"),
    ("eval kitti --gt {W}/labels --dt {W}/results --out {W}/file", "/file: cannot make the folder"),
    ("convert kitti-raw {W}/empty {W}/out", "/empty/calib_cam_to_cam.txt: cannot read"),
    ("models geo", "there is no model 'geo' (there are: geometric"),
    ("launch pipelin", "did you mean 'pipeline'?"),
    ("launch pipeline bag=x", "'bag=x' is not NAME:=VALUE"),
]


@pytest.fixture
def folder(tmp_path, mini_bag):
    work = tmp_path / "work"
    (work / "empty").mkdir(parents=True)
    (work / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    (work / "zero.mcap").write_bytes(b"")
    for name in ("text.mcap", "text.db3", "file"):
        (work / name).write_text("hello")
    (work / "a.json").write_text("{}")
    for name, score in (("labels", ""), ("results", " 0.5")):
        (work / name).mkdir()
        line = f"Car 0 0 0 1 2 30 40 1 1 1 0 0 9 0{score}\n"
        (work / name / "000000.txt").write_text(line)
    (work / "a.yaml").write_text("hello: 1")
    with BagReader(mini_bag) as source, BagWriter(work / "transforms") as bag:
        bag.add_topic("/tf_static", source.topics["/tf_static"].type)
        for m in source.messages(["/tf_static"]):
            bag.write(m.topic, m.message, m.stamp)
    (work / "tracks.mcap").write_bytes(next((work / "transforms").glob("*.mcap")).read_bytes())
    return work


@pytest.mark.parametrize(("words", "says"), WRONG, ids=[" ".join(w.split()[:3]) for w, _ in WRONG])
def test_a_mistake_is_one_line_and_leaves_nothing(
    words, says, folder, mini_bag, monkeypatch, capsys
):
    def files():
        places = (folder, Path(mini_bag))
        return {(p, p.stat().st_mtime_ns) for place in places for p in place.rglob("*")}

    before = files()
    told = words.replace("{W}", str(folder)).replace("{BAG}", str(mini_bag))
    monkeypatch.setattr(sys, "argv", ["amodal", *told.split()])
    with pytest.raises(SystemExit) as end:
        main.main()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert end.value.code == 2
    assert [line for line in lines if line.startswith("error ")] == lines[-1:]
    pattern = re.escape(says).replace(re.escape(".*"), ".*")
    assert re.search(pattern, lines[-1]), lines[-1]
    assert files() == before
