"""Every command of the pages runs, one after the other, as a reader of the page would run it."""

from __future__ import annotations

import glob
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import page_folders as has
import pytest
from page_folders import Maker
from pages import PAGES, ROOT, commands, groups, named
from typer.testing import CliRunner

from amodal_core.errors import InputError
from amodal_ros.cli.main import app

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("domain")]

NETWORK = "fetches from the network"
TESTS = "runs the tests themselves"
WORKSPACE = "needs a ROS 2 workspace, which fills the machine"
DOCKER = "needs Docker and the network"
ROS_SECURITY = "needs ros2 with its security tools"
FIREWALL = "changes the machine's firewall, as root"
RAY = "needs a Ray cluster"
HOURS = "trains for hours; the models' trainings are tests of their own"
EXPORTED = "sets a variable for the shell that goes on"

NOT_RUN = {
    "make test": TESTS,
    "make coverage": TESTS,
    "make test-slow": TESTS,
    "make test-ros": TESTS,
    "make docs": NETWORK,
    "make setup": NETWORK,
    "source .venv/bin/activate": EXPORTED,
    "make ros WS=~/ros2_ws": WORKSPACE,
    "source ~/ros2_ws/amodal.bash": WORKSPACE,
    "source install/setup.bash": WORKSPACE,
    "colcon build --base-paths src/amodal_ros src/amodal_ros/amodal_msgs": WORKSPACE,
    "docker compose -f docker/compose.yaml run jazzy "
    "ros2 launch amodal_ros pipeline.launch.py --show-args": DOCKER,
    "docker compose -f docker/compose.yaml run jazzy-cuda "
    "ros2 launch amodal_ros pipeline.launch.py device:=cuda:0": DOCKER,
    "export FASTDDS_DEFAULT_PROFILES_FILE="
    "~/ros2_ws/install/amodal_ros/share/amodal_ros/config/fastdds.xml": EXPORTED,
    "export CYCLONEDDS_URI="
    "file://$HOME/ros2_ws/install/amodal_ros/share/amodal_ros/config/cyclonedds.xml": EXPORTED,
    "ros2 security create_keystore ~/keys": ROS_SECURITY,
    "ros2 security create_enclave ~/keys /amodal": ROS_SECURITY,
    "export ROS_SECURITY_KEYSTORE=~/keys ROS_SECURITY_ENABLE=true "
    "ROS_SECURITY_STRATEGY=Enforce": EXPORTED,
    "nft add table inet ros": FIREWALL,
    "nft add chain inet ros input { type filter hook input priority 0; policy accept; }": FIREWALL,
    "nft add rule inet ros input iifname != lo udp dport { 7400-65535 } ct state new drop":
    FIREWALL,
    "pip install amodal_ros[views]": NETWORK,
    "pip install amodal_ros[supervision]": NETWORK,
    "pip install amodal_ros[ray]": NETWORK,
    "amodal replay drives --out /shared/all --workers 64 --ray auto": RAY,
    "bash benchmarks/small_models.sh": HOURS,
}  # fmt: skip

# The commands of papers run in test_reproduce.py.
PAPERS = {line for group in groups() for line in group}

# What stands on all pages, and what is run here.
EVERYWHERE = {
    "ros2 launch amodal_ros pipeline.launch.py": "amodal launch pipeline",
    " rviz:=true": "",  # rviz2 comes with ROS 2 only
    "make demo": "amodal demo --out build/demo",
    "--workers 8": "--workers 2",
    "--nproc-per-node 8": "--nproc-per-node 2",
    "--nproc-per-node 4": "--nproc-per-node 2",
    "python benchmarks": f"{sys.executable} benchmarks",
}
# A command that needs an extra which is not installed names it in its one line.
EXTRAS = {"--rerun": ("rerun", "amodal_ros[views]"), "--view": ("rerun", "amodal_ros[views]")}


@dataclass(frozen=True)
class Page:
    """How a page is run.

    Attributes:
        has: makes what the reader has before the first command.
        instead: parts of commands, and what is run in their place: placeholders, and sizes.
        shorter: how commands begin, and what is appended to them.
    """

    has: Sequence[Maker] = ()
    instead: Mapping[str, str] = field(default_factory=dict)
    shorter: Mapping[str, str] = field(default_factory=dict)


AMODAL = [sys.executable, "-c", "from amodal_ros.cli.main import main; main()"]
SMALL_TRAINING = (
    "settings.backbone=resnet18 settings.norm=group settings.frozen_stages=0 settings.weights= "
    "settings.short_side=96 steps=2 schedule.warm_up=1 workers=0 device=cpu"
)
TINY_DRIVES = (
    "steps=2 schedule.warm_up=1 batch_size=2 workers=0 train.0.synthetic.frames=2 "
    "train.0.synthetic.length=2 held_out.0.synthetic.frames=2 held_out.0.synthetic.length=2"
)
MINE = """
model: flagship
settings: {variant: compact}
train: [{path: streets}]
steps: 1
schedule: {warm_up: 1}
batch_size: 1
workers: 0
out: runs/tiny
"""
OST = """
image_width: 540
image_height: 163
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [313.7, 0, 265.0, 0, 313.7, 75.2, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.02, 0.001, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [313.7, 0, 265.0, 0, 0, 313.7, 75.2, 0, 0, 0, 1, 0]}
"""

HOW = {
    "README.md": Page(
        (has.linked, has.sample_drive, has.nuscenes, has.kitti_raw, has.vehicle_bag("my_drive"),
         has.two_camera_bag("drive"), has.bag("drives/a.mcap", "drives/b.mcap"),
         has.drives_in("streets", 3), has.written("tiny.yaml", MINE),
         has.truth_as_results("streets", "results"), has.published_pointpillars),
        {
            "image:=/camera/image_rect": "model:=geometric image:=/camera/image_rect",
            "bag:=my_drive": "model:=geometric image:=/front/image_raw "
                             "camera_info:=/front/camera_info points:=/lidar/points bag:=my_drive",
            "scene-0061": "scene-0001",
            "--frames 200": "--frames 2 --size 320x96",
            "PATH": "streets",
            "bag --gt G --dt D": "bag --gt data/sample_drive --dt build/demo",
            "--gt G --dt D": "--gt streets --dt results",
            "--out DIR": "--out build/dir",
            "CONFIG": "tiny.yaml",
            "infer DATA": "infer streets",
            "CHECKPOINT": "runs/tiny/final.safetensors",
            "FILE": "pointpillar_7728.pth",
            "--model NAME": "--model pointpillars",
        },
    ),
    "CONTRIBUTING.md": Page((has.linked, has.sample_drive)),
    "docs/benchmarks.md": Page((has.linked,), {"--images 1000": "--images 5"}),
    "docs/datasets.md": Page(
        (has.kins_in("kins"),),
        {"PATH": "kins/update_test_2020.json", "SRC": "kins/update_test_2020.json",
         "FORMAT": "coco"},
    ),
    "docs/evaluate.md": Page(
        (has.bag("my_drive"), has.kins_in("KINS"), has.kitti_object, has.kitti_raw, has.tao,
         has.synth_drive("AmodalSynthDrive"),
         has.checkpoint("aisformer", "aisformer.safetensors"),
         has.checkpoint("pointpillars", "pointpillars.safetensors")),
        {"build/eval_a build/eval_b": "build/eval_a build/a/evaluation"},
    ),
    "docs/evaluation.md": Page(
        (has.kins_in("kins"), has.truth_as_results("kins/update_test_2020.json", "results"),
         has.sail_vos, has.bag("build/drive.mcap", "build/drive"), has.kitti_object,
         has.typed("amodal replay build/drive.mcap --out build/replay --model geometric"),
         has.checkpoint("pointpillars", "best.safetensors")),
        {"build/eval/a build/eval/b": "build/eval build/replay/evaluation"},
        {"amodal eval live": "--seconds 1 --highest 2"},
    ),
    "docs/recorded_drives.md": Page(
        (has.recorded,),
        {"scene-0061": "scene-0001", "ring_front_left": "ring_front_center",
         "LOG": "0b86f508-5df9-4a46-bc59-5b9536dbde9f",
         "SEGMENT": has.recorded_scenes.SEGMENT},
    ),
    "docs/reproduce.md": Page(
        (has.linked, has.streets_as_kins("data/kins"), has.published_pointpillars,
         has.published_mask_rcnn),
        {"FILE FILE": "pointpillar_7728.pth", "--model NAME": "--model pointpillars"},
        {"amodal train": "settings.weights= settings.short_side=96 steps=1 schedule.warm_up=1 "
                         "workers=0 device=cpu held_out=[]"},
    ),
    "docs/results.md": Page(
        (has.linked, has.real_data),
        {"--frames 240 --length 40": "--frames 4 --length 4", "PYTHONPATH=.": ""},
        {"amodal train": TINY_DRIVES},
    ),
    "benchmarks/real_frames/README.md": Page(
        (has.linked, has.real_data), {"PYTHONPATH=.": "", "../shared/data": "DATA"}
    ),
    "docs/ros.md": Page(),
    "docs/security.md": Page(
        instead={"amodal launch pipeline": "amodal launch pipeline model:=geometric"}
    ),
    "docs/see.md": Page(
        (has.sample_drive, has.vehicle_bag("my_drive")),
        {"bag:=my_drive": "bag:=my_drive image:=/front/image_raw "
                          "camera_info:=/front/camera_info points:=/lidar/points"},
    ),
    "docs/start.md": Page((has.linked, has.sample_drive),
                          {"--frames 40": "--frames 4 --size 320x96"}),
    "docs/synthetic.md": Page(
        instead={"--frames 50": "--frames 2 --size 320x96",
                 "--frames 10000": "--frames 2 --size 320x96",
                 "--frames 200": "--frames 2 --size 480x270", "--workers 16": "--workers 2",
                 "--frames 40 --length 40": "--frames 4 --length 4"},
    ),
    "docs/training.md": Page(
        (has.linked, has.drives_in("streets", 3), has.written("tiny.yaml", MINE),
         has.streets_as_kins("data/kins"), has.movi, has.drives_in("build/drives", 3),
         has.synth_drive("data/amodal_synth_drive"),
         has.checkpoint("aisformer", "runs/kins_aisformer/best.safetensors"),
         has.checkpoint("flagship", "runs/flagship_compact/best.safetensors"),
         has.checkpoint("flagship", "compact.safetensors"),
         has.checkpoint("flagship", "runs/a/final.safetensors"),
         has.checkpoint("flagship", "runs/b/final.safetensors"),
         has.checkpoint("eoras", "runs/movi_b_eoras/best.safetensors"),
         has.checkpoint("eoras", "eoras.safetensors"),
         has.checkpoint("s_amodal", "runs/asd_s_amodal/best.safetensors")),
        {"CONFIG key=value --processes 8": "tiny.yaml batch_size=2 --processes 2",
         "CONFIG key=value": "tiny.yaml batch_size=2 out=runs/again",
         "sharding=fsdp": "sharding=fsdp out=runs/shared",
         "split=true": "split=true out=runs/split",
         "--frames 240 --length 40": "--frames 4 --length 4",
         "truck=-0.5 --logit bus=-1.4": "car=-0.5 --logit pedestrian=-1.4"},
        {"amodal train training/": TINY_DRIVES,
         "torchrun --nproc-per-node 2 -m training.train training/": SMALL_TRAINING},
    ),
    "docs/vehicle.md": Page(
        (has.vehicle_bag("my_drive"), has.two_camera_bag("two"), has.written("ost.yaml", OST),
         has.copied("config/geometric.yaml", "my_geometric.yaml"),
         has.bag("drives/a.mcap", "drives/b.mcap")),
        {"my_drive --out build/out --image all": "two --out build/two --image all",
         "bag:=my_drive points:=none": "bag:=my_drive points:=none image:=/front/image_raw "
                                       "camera_info:=/front/camera_info"},
        {"amodal eval live": "--seconds 1 --highest 2"},
    ),
    "docs/your_data.md": Page(
        (has.labelled("my_labels", "labels/train", "labels/valid"), has.pictures,
         has.vehicle_bag("my_drive"),
         has.page_yaml("docs/your_data.md", "model:", "mine.yaml"), has.published_resnet,
         has.published_mask_rcnn,
         has.typed("amodal weights import maskrcnn_resnet50_fpn_coco.pth --model mask_rcnn "
                   "--partial --classes car,pedestrian --out coco.safetensors")),
        shorter={"amodal train": "steps=2 schedule.warm_up=1 workers=0 settings.short_side=96"},
    ),
    "launch/README.md": Page(
        (has.bag("build/drive"), has.page_yaml("launch/README.md", "- {name:", "cameras.yaml"),
         has.written("rear.yaml", OST)),
    ),
    "training/README.md": Page(
        (has.linked, has.streets_as_kins("data/kins")),
        shorter={"amodal train": TINY_DRIVES,
                 "torchrun --nproc-per-node 2 -m training.train training/": SMALL_TRAINING},
    ),
}  # fmt: skip


def lines_of(page: Path) -> list[str]:
    """The page's commands that are run here, as they stand there."""
    every = [" ".join(words) for words in commands(page)]
    return [line for line in every if line not in NOT_RUN and line not in PAPERS]


WITH_COMMANDS = [page for page in PAGES if lines_of(page)]


def test_what_is_not_run_stands_on_a_page_and_has_a_reason():
    every = {" ".join(words) for page in PAGES for words in commands(page)}
    assert set(NOT_RUN) <= every
    assert {named(page) for page in WITH_COMMANDS} == set(HOW)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=named)
def test_every_command_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(ROOT / "test"))))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # As `source .venv/bin/activate` does.
    monkeypatch.setenv(
        "PATH", os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    )
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    how = HOW[named(page)]
    for make in how.has:
        make(tmp_path)
    unused, failures = set(how.instead) | set(how.shorter), []
    for line in lines_of(page):
        given = line
        for before, after in {**EVERYWHERE, **how.instead}.items():
            if before in given:
                unused.discard(before)
                given = given.replace(before, after)
        for begin, appended in how.shorter.items():
            if given.startswith(begin):
                unused.discard(begin)
                given = f"{given} {appended}"
        if failure := failure_of(given):
            failures.append(f"{line}\n    run as: {given}\n{failure}")
    assert not failures, "\n".join(failures)
    assert not unused


def failure_of(line: str) -> str:
    """What a command says that does not end well, "" where it does; a live launch ends when up."""
    words = [w for word in shlex.split(line) for w in sorted(glob.glob(word)) or [word]]
    if words[:2] == ["amodal", "launch"]:
        ended = {"--show-args"} & set(words) or any(w.startswith("bag:=") for w in words)
        code, output = (to_the_end if ended else until_it_is_up)([*AMODAL, *words[1:]])
    elif words[0] == "amodal":
        code, output = in_this_process(words[1:])
    else:
        code, output = to_the_end(words)
    for option, (module, extra) in EXTRAS.items():
        if option in words and find_spec(module) is None and code == 2 and extra in output:
            return ""
    return output or f"exit code {code}" if code else ""


def in_this_process(words: Sequence[str]) -> tuple[int, str]:
    """Exit code and output of `amodal WORDS`."""
    done = CliRunner().invoke(app, list(words))
    if isinstance(done.exception, InputError):
        return 2, str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return 1, "".join(traceback.format_exception(done.exception))
    return done.exit_code, done.output


def to_the_end(words: Sequence[str]) -> tuple[int, str]:
    """Exit code and output of a process, variables before its name included."""
    variables = list(itertools.takewhile(re.compile(r"[A-Z_]+=").match, words))
    env = os.environ | dict(v.split("=", 1) for v in variables)
    try:
        done = subprocess.run(
            words[len(variables) :],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
    except FileNotFoundError as error:
        return 127, str(error)
    return done.returncode, done.stdout


def until_it_is_up(words: Sequence[str]) -> tuple[int, str]:
    """Exit code and output of a live launch that Ctrl-C ends once its model waits for frames."""
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as launch:
        assert launch.stdout is not None
        late = threading.Timer(180, launch.kill)
        late.start()
        lines = []
        for line in launch.stdout:
            lines.append(line)
            if re.search(r"model \w+ on cpu", line):
                launch.send_signal(signal.SIGINT)
                break
        lines += launch.stdout.readlines()
        late.cancel()
    return launch.returncode, "".join(lines)
