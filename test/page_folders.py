"""What a reader of the pages has on the disk before the first command: tiny, in the real layouts.

Each function takes the reader's folder. Weights are seeded, not trained.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import published_data
import recorded_scenes
import tao_scenes
import torch
import torchvision
from conftest import real_data as shared_data
from datasets_scenes import CLASSES, drive
from eoras_scenes import SMALL as EORAS
from kitti_scenes import write_raw
from numpy.random import default_rng
from pages import ROOT, blocks
from seeded_weights import save_pointpillars
from training_scenes import SAM_SETTINGS, SETTINGS, Streets, write_drives
from typer.testing import CliRunner

from amodal_core.bags.factory import typestore
from amodal_core.bags.reader import BagReader
from amodal_core.bags.writer import BagWriter
from amodal_core.datasets import kins, kitti_write, labelme, sailvos
from amodal_core.datasets.image_files import write_image
from amodal_core.datasets.registry import open_dataset
from amodal_core.drive.topics import CAMERA_INFO, IMAGE, POINTS
from amodal_core.evaluation.formats import write_results
from amodal_core.evaluation.truth import index_of, read_truth
from amodal_core.files import write_text
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_ros.cli.main import app

Maker = Callable[[Path], object]
SAMPLE = ROOT / "data" / "sample_drive"
# Topics of the sample drive, and what they are called on a vehicle.
ON_A_VEHICLE = {
    IMAGE.bag_name: "/front/image_raw",
    CAMERA_INFO.bag_name: "/front/camera_info",
    POINTS.bag_name: "/lidar/points",
}
LEFT = {"/front/image_raw": "/left/image_raw", "/front/camera_info": "/left/camera_info"}


def begin_of_sample_drive(
    root: Path,
    *places: str,
    frames: int = 4,
    names: Mapping[str, str] | None = None,
    twice: Mapping[str, str] | None = None,
) -> None:
    """The first frames of the sample drive.

    Args:
        root: the reader's folder.
        *places: folders of bags, or .mcap files.
        frames: how many.
        names: topics that have another name.
        twice: topics, as they are named then, that are there under a second name, too.
    """
    names, twice = names or {}, twice or {}
    for place in places:
        with BagReader(SAMPLE) as bag, BagWriter(root / place) as written:
            for topic in bag.topics.values():
                for name in _names(topic.name, names, twice):
                    written.add_topic(name, topic.type, latched=topic.latched)
            begin = None
            for raw in bag.raw_messages():
                begin = raw.stamp if begin is None else begin
                # Ten frames a second.
                if raw.stamp - begin > (frames - 0.5) * 1e8:
                    break
                message = typestore().deserialize_cdr(bag.current(raw), raw.type)
                for name in _names(raw.topic, names, twice):
                    written.write(name, message, raw.stamp)


def _names(topic: str, names: Mapping[str, str], twice: Mapping[str, str]) -> list[str]:
    name = names.get(topic, topic)
    return [name, *([twice[name]] if name in twice else [])]


def bag(*places: str, **options: object) -> Maker:
    """Drives with one camera under the usual topics."""
    return lambda root: begin_of_sample_drive(root, *places, **options)  # type: ignore[arg-type]


vehicle_bag = partial(bag, names=ON_A_VEHICLE)
two_camera_bag = partial(bag, names=ON_A_VEHICLE, twice=LEFT)


def kitti_raw(root: Path) -> None:
    """2011_09_26/2011_09_26_drive_0001_sync with its calibration."""
    write_raw(root, "2011_09_26_drive_0001_sync")


def kitti_object(root: Path) -> None:
    """KITTI with training and ImageSets/val.txt: two frames."""
    samples = Streets(2).samples
    names = list(kitti_write.write(root / "KITTI", samples, CLASSES_OF_STREETS))
    (root / "KITTI" / "ImageSets").mkdir()
    (root / "KITTI" / "ImageSets" / "val.txt").write_text("".join(f"{n}\n" for n in names))


CLASSES_OF_STREETS = ("Car", "Pedestrian", "Cyclist")


def nuscenes(root: Path) -> None:
    """NUSCENES."""
    recorded_scenes.write_nuscenes(root / "NUSCENES")


def recorded(root: Path) -> None:
    """nuScenes, Argoverse 2 and Waymo."""
    nuscenes(root)
    recorded_scenes.write_argoverse(root / "av2" / "val")
    recorded_scenes.write_waymo(root / "waymo" / "validation")


def kins_in(place: str) -> Maker:
    """KINS' train and test annotations with their images."""

    def make(root: Path) -> None:
        published_data.write_kins(root)
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(root / "KINS", root / "moved")
        shutil.move(root / "moved", root / place)
        folder = root / place
        shutil.copy(folder / "update_test_2020.json", folder / "update_train_2020.json")

    return make


def streets_as_kins(place: str) -> Maker:
    """Streets that a network can begin to learn, as KINS' train and test splits."""

    def make(root: Path) -> None:
        list(kins.write(root / place, Streets(4).samples, ("car", "pedestrian", "cyclist")))
        train = root / place / "update_train_2020.json"
        shutil.copy(train, train.with_name("update_test_2020.json"))

    return make


def labelled(*places: str) -> Maker:
    """Images with labelme's annotations: cars, pedestrians, vans and a dog."""

    def make(root: Path) -> None:
        samples = Streets(3).samples
        samples[-1].truth.class_ids[0] = 3
        for place in places:
            list(labelme.write(root / place, samples, ("car", "pedestrian", "van", "dog")))

    return make


def pictures(root: Path) -> None:
    """Images alone, and what docs/your_data.md makes of them."""
    for number, sample in enumerate(Streets(2).samples):
        write_image(root / "pictures" / f"{number}.jpg", sample.frame.image)
    listing, finding = blocks(ROOT / "docs" / "your_data.md", "python")[1:]
    exec(listing, {})
    typed("amodal infer pictures/images.json --out build/pictures")(root)
    exec(finding, {})


def typed(*lines: str) -> Maker:
    """What these commands leave."""

    def make(root: Path) -> None:
        for line in lines:
            done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
            assert done.exit_code == 0, done.output

    return make


def tao(root: Path) -> None:
    """TAO-Amodal, and predictions.json as its own evaluation takes them."""
    _, results = tao_scenes.write(root / "TAO-Amodal", amodal_key=False)
    (root / "predictions.json").write_text(json.dumps(results))


def synth_drive(place: str) -> Maker:
    """AmodalSynthDrive's val, and genvis.json, what a tracker of visible masks gives."""

    def make(root: Path) -> None:
        published_data.write_synth_drive(root)
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(root / "amodal_synth_drive", root / place)
        shutil.move(root / "asd_valid_genvis_1080_results.json", root / "genvis.json")

    return make


def sail_vos(root: Path) -> None:
    """sailvos/valid.json, and results.json with amodal masks."""
    samples = drive(default_rng(4), 3, "ah_3a_ext_0019")
    list(sailvos.write(root / "sailvos", samples, CLASSES))
    shutil.move(root / "sailvos" / "joint.json", root / "sailvos" / "valid.json")
    truth_as_results("sailvos/valid.json", "made")(root)
    shutil.move(root / "made" / "amodal.json", root / "results.json")


def movi(root: Path) -> None:
    """data/movi_b/test."""
    published_data.write_movis(root / "data")


def truth_as_results(data: str, out: str) -> Maker:
    """Results that are the truth, as `amodal infer` writes them."""

    def make(root: Path) -> None:
        opened = open_dataset(root / data)
        ids = {k: number for number, k in index_of(opened).category_ids.items()}
        numbers = [ids[k] for k in range(len(opened.classes))]
        write_results(read_truth(root / data).set, root / out, numbers)

    return make


def drives_in(place: str, *lengths: int) -> Maker:
    """Unpacked drives of simple streets, as training leaves them in its cache."""
    return lambda root: write_drives(root / place, *lengths)


def checkpoint(model: str, place: str, **settings: object) -> Maker:
    """The smallest form of a model with seeded weights."""

    def make(root: Path) -> None:
        torch.manual_seed(0)
        small = (SETTINGS | {"s_amodal": SAM_SETTINGS, "eoras": EORAS})[model]
        classes = ("pedestrian", "cyclist", "car") if model == "pointpillars" else CLASSES
        made = registry.learned(model).from_config({**small, **settings, "classes": classes})
        info = CheckpointInfo(model, made.config_json(), made.classes)
        save_checkpoint(root / place, made, info)

    return make


def copied(source: str, place: str) -> Maker:
    """A file of the checkout."""

    def make(root: Path) -> None:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, root / place)

    return make


def written(place: str, text: str) -> Maker:
    """A text file."""
    return lambda root: write_text(root / place, text)


def linked(root: Path) -> None:
    """The checkout's own folders that the commands name."""
    for name in (
        "training",
        "benchmarks",
        "config",
        "amodal_core",
        "amodal_ros",
        "test",
        "embedded_ros",
    ):
        (root / name).symlink_to(ROOT / name)


def sample_drive(root: Path) -> None:
    """data/sample_drive, shortened."""
    begin_of_sample_drive(root, "data/sample_drive")


def published_pointpillars(root: Path) -> None:
    """pointpillar_7728.pth."""
    save_pointpillars()


def published_mask_rcnn(root: Path) -> None:
    """maskrcnn_resnet50_fpn_coco.pth."""
    model = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(model.state_dict(), root / "maskrcnn_resnet50_fpn_coco.pth")


def published_resnet(root: Path) -> None:
    """weights/resnet50.pth."""
    (root / "weights").mkdir()
    model = torchvision.models.resnet50(weights=None)
    torch.save(model.state_dict(), root / "weights" / "resnet50.pth")


def page_yaml(page: str, words: str, place: str) -> Maker:
    """The file that a page shows: its YAML block with these words."""
    text = next(b for b in blocks(ROOT / page, "yaml") if words in b)
    return written(place, text)


def real_data(root: Path) -> None:
    """DATA: real frames; skips where they are absent."""
    (root / "DATA").symlink_to(shared_data(""))
