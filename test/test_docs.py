"""What the pages tell people to type is what the commands take, and their Python is ours."""

from __future__ import annotations

import ast
import json
import re
import sys
import types
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from pages import BLOCK, PAGES, ROOT, SHELL, blocks, commands, named

from amodal_core.datasets.registry import open_dataset
from amodal_core.frame import Frame
from amodal_core.models.base import Model
from amodal_core.models.checkpoint_info import read_info
from amodal_core.models.registry import DEFAULT, shipped
from amodal_ros.cli import main as cli
from training.config import parse as parse_training

_OURS = ("amodal_core", "amodal_ros", "embedded_ros", "training", "amodal_training")
# What begins a line of a shell's block, and no drawing.
_PROGRAMS = re.compile(
    r"(?m)^ *(amodal|make|torchrun|ros2|python|pip|bash|docker|source|[A-Z_]+=\S*) "
)


def is_group(command: Any) -> bool:
    return hasattr(command, "resolve_command")


def refusal(words: list[str]) -> str:
    """Why `amodal WORDS` would be refused before it does anything, "" where it would not.

    Typer brings a click of its own in new versions, so that nothing of click is named here.
    """
    command: Any = cli.typer.main.get_command(cli.app)
    context = command.context_class(command, info_name="amodal")
    rest = list(words)
    try:
        while is_group(command):
            if not rest:
                return f"amodal {' '.join(words)}: which command?"
            name, command, rest = command.resolve_command(context, rest)
            if is_group(command):
                context = command.context_class(command, info_name=name, parent=context)
        command.make_context(name, rest, parent=context)
    except Exception as error:
        if hasattr(error, "format_message"):
            return f"amodal {' '.join(words)}: {error.format_message()}"
        if not hasattr(error, "exit_code"):  # of --help and --version
            raise
    return ""


def launch_arguments() -> set[str]:
    """Names in the launch files, in what reads their arguments, and of topics."""
    files = [*(ROOT / "launch").glob("*.py"), ROOT / "amodal_ros" / "launching.py"]
    files.append(ROOT / "amodal_core" / "drive" / "topics.py")
    trees = [ast.parse(path.read_text()) for path in files]
    return {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def wrong(words: list[str]) -> str:
    """Why a command line would be refused, "" where it would not."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    launched = words[:2] == ["ros2", "launch"] or words[:2] == ["amodal", "launch"]
    if launched:
        names = {w.partition(":=")[0] for w in words if ":=" in w}
        if unknown := names - launch_arguments():
            return f"{' '.join(words)}: no argument {', '.join(sorted(unknown))}"
    if words[0] == "amodal":
        return refusal(words[1:])
    if words[0] == "make":
        given = {w for w in words[1:] if "=" not in w and not w.startswith("-")}
        return f"make: no target {given - targets()}" if given - targets() else ""
    if "-m" in words:
        module = words[words.index("-m") + 1]
        if module.split(".")[0] in _OURS and find_spec(module) is None:
            return f"no module {module}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_line_is_one_that_the_command_takes(page):
    assert not list(filter(None, map(wrong, commands(page))))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_is_to_be_typed_stands_in_a_block_for_a_shell(page):
    languages = {language for _, language, _ in BLOCK.findall(page.read_text())}
    others = blocks(page, *(languages - {SHELL, "python"}))
    assert not [body for body in others if _PROGRAMS.search(body)]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_options_in_the_text_exist(page):
    text = BLOCK.sub("", page.read_text())
    lacking = []
    for span in re.findall(r"`(amodal [a-z][^`\n]*|make [a-z][^`\n]*)`", text):
        words = re.sub(r"[\[\]]|\.\.\.", "", span).split()
        if words[0] == "make":
            lacking += [span] if words[1].islower() and words[1] not in targets() else []
            continue
        command: Any = cli.typer.main.get_command(cli.app)
        context = command.context_class(command)
        for word in (w.split("|")[0] for w in words[1:]):
            if not is_group(command):
                break
            if not word[0].isalpha():
                continue
            if command.get_command(context, word) is None:
                lacking.append(span)
                break
            command = command.resolve_command(context, [word])[1]
        known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        options = {w.partition("=")[0] for w in words if w.startswith("--")}
        lacking += [span] if options - known - {"--help", "--version"} else []
    assert not lacking


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=named)
def test_python_compiles_and_what_it_imports_is_there(page):
    for body in blocks(page, "python"):
        tree = ast.parse(body)
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.level or not node.module:
                continue
            if node.module.split(".")[0] not in _OURS:
                continue
            module = import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "yaml")], ids=named)
def test_yaml_is_yaml(page):
    for body in blocks(page, "yaml"):
        yaml.safe_load(body)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_that_are_there(page):
    text = BLOCK.sub("", page.read_text())
    paths = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [p for p in paths if p and not re.match(r"[a-z]+:", p)]
    assert not [p for p in local if not (page.parent / p).exists()]


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=named)
def test_workflows_and_templates_are_yaml_and_make_what_can_be_made(path):
    content = yaml.safe_load(path.read_text())
    jobs = content.get("jobs", {}).values()
    script = "\n".join(step.get("run", "") for job in jobs for step in job["steps"])
    assert set(re.findall(r"(?:^|&& |; )make ([a-z-]+)", script, re.MULTILINE)) <= targets()


@pytest.mark.parametrize("given", ["amodal replay", "amodal data fromats", "amodal infer x --size"])
def test_a_command_that_does_not_exist_is_noticed(given):
    assert wrong(given.split())


def test_a_launch_argument_that_does_not_exist_is_noticed():
    assert wrong(["amodal", "launch", "pipeline", "imagee:=/camera"])
    assert not wrong(["amodal", "launch", "pipeline", "image:=/camera"])
    assert wrong(["make", "dmeo"])


def test_the_model_and_the_data_set_of_the_page_are_what_the_page_says(tmp_path, monkeypatch):
    model_code, data_code, node_code = blocks(ROOT / "docs" / "extending.md", "python")
    for body in (model_code, data_code, node_code):
        assert len(body.splitlines()) < 60
    # dataclasses look for the module that they are made in.
    module = types.ModuleType("of_the_page")
    monkeypatch.setitem(sys.modules, "of_the_page", module)
    exec(model_code, vars(module))
    exec(data_code, vars(module))
    model = module.Near()
    assert isinstance(model, Model)
    depth = np.zeros((40, 60), np.float32)
    depth[5:15, 5:15], depth[20:35, 30:50] = 10.0, 30.0
    (near,) = model.infer([Frame(1, depth=depth)])
    assert near.amodal_boxes.tolist() == [[3, 3, 17, 17]]
    assert near.depths.tolist() == [10.0]
    labels = np.zeros((40, 60), np.uint8)
    labels[5:15, 5:25] = 3
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((40, 60, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "a_amodal.png"), labels)
    labels[:, :15] = 0
    cv2.imwrite(str(tmp_path / "a_visible.png"), labels)
    data = module.Labels(tmp_path)
    assert [f for f in data.check() if f] == []
    assert data[0].truth.occlusion_rates.tolist() == [0.5]


def test_the_node_of_the_page_counts():
    module = types.ModuleType("of_the_page")
    exec(blocks(ROOT / "docs" / "extending.md", "python")[2], vars(module))
    declared = module.HiddenCount.declaration
    assert [t.name for t in declared.subscribes] == ["tracks"]
    assert not declared.parameters[0].refusal(0.5)


def test_annotations_of_cvat_become_amodal_ones(tmp_path, monkeypatch):
    """A car of 20 x 10 pixels that shows on both sides of a post, and one in full view."""

    def polygon(x0, x1):
        return [[x0, 5, x1, 5, x1, 15, x0, 15]]

    def annotation(number, category, polygons, thing):
        return {
            "id": number, "image_id": 1, "category_id": category, "segmentation": polygons,
            "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1], "attributes": {"object": thing},
        }  # fmt: skip

    data = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "car_visible"}],
        "annotations": [
            annotation(1, 1, polygon(5, 25), 1),
            annotation(2, 2, polygon(5, 15), 1),
            annotation(4, 2, polygon(20, 25), 1),
            annotation(3, 1, polygon(40, 50), 2),
        ],
    }
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((40, 60, 3), np.uint8))
    (tmp_path / "cvat.json").write_text(json.dumps(data))
    monkeypatch.chdir(tmp_path)
    exec(blocks(ROOT / "docs" / "your_data.md", "python")[0], {})
    made = open_dataset(tmp_path / "annotations.json")
    assert made.classes == ("car",)
    assert made[0].truth.occlusion_rates.tolist() == pytest.approx([0.25, 0.0])


def test_what_is_found_in_images_of_the_page_becomes_annotations(tmp_path, monkeypatch):
    """A car that shows in its left half, and one that nobody is sure of."""
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "street 1.jpg"), np.zeros((40, 60, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    listing, finding = blocks(ROOT / "docs" / "your_data.md", "python")[1:]
    exec(listing, {})
    data = open_dataset("pictures/images.json")
    assert data[0].frame.size == (40, 60)
    assert data.classes == tuple(read_info(shipped(DEFAULT)).config["classes"])
    (tmp_path / "build" / "pictures").mkdir(parents=True)
    for kind, right in (("amodal", 30), ("visible", 20)):
        box = [[10, 10, right, 10, right, 20, 10, 20]]
        row = {"image_id": 1, "category_id": 6, "segmentation": box, "instance_id": -1}
        rows = [{**row, "id": 1, "score": 0.9}, {**row, "id": 2, "score": 0.1}]
        (tmp_path / "build" / "pictures" / f"{kind}.json").write_text(json.dumps(rows))
    exec(finding, {})
    found = open_dataset("pictures/found.json")
    assert found.truth(0).occlusion_rates.tolist() == [0.5]
    assert found.classes[found.truth(0).class_ids[0]] == "pedestrian"


def test_the_training_of_the_page_is_a_configuration():
    config = next(b for b in blocks(ROOT / "docs" / "your_data.md", "yaml") if "model:" in b)
    assert parse_training(yaml.safe_load(config)).model == "mask_rcnn"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["replay_and_look", "evaluate_two_models"])
def test_notebooks_run_from_top_to_bottom(name, monkeypatch):
    monkeypatch.chdir(ROOT / "examples")
    cells = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text())["cells"]
    scope = {"__name__": name}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), scope)
    if name == "evaluate_two_models":
        assert {t.label for t in scope["records"]["geometric"].headlines} >= {"HOTA, amodal"}
        assert scope["written"][0].is_file()
    else:
        assert scope["visible"].sum() <= scope["amodal"].sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "amodal_core/README.md", "docs/vehicle.md"])
def test_python_of_the_first_pages_runs(page, tmp_path, monkeypatch):
    """On the sample drive, whatever their drive is called."""
    (tmp_path / "build").mkdir()
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "build" / "drive").symlink_to(ROOT / "data" / "sample_drive")
    monkeypatch.chdir(tmp_path)
    for body in blocks(ROOT / page, "python"):
        exec(compile(body, page, "exec"), {"__name__": page})
