"""What pip installs: names that are ours alone, typed, with all that the commands read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import amodal_core

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the packages as the wheel holds them."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=200)
    return out


def test_the_top_level_names_are_ours_alone_and_each_is_typed(installed):
    names = sorted(p.name for p in installed.iterdir())
    assert names == ["amodal_core", "amodal_ros", "amodal_training", "embedded_ros"]
    assert all((installed / name / "py.typed").is_file() for name in names)


def test_what_is_read_at_run_time_comes_with_the_code(installed):
    files = {str(p.relative_to(installed)) for p in installed.rglob("*") if p.is_file()}
    pages = ("base", "page", "evaluation", "parts")
    assert {f"amodal_core/views/report/{name}.html" for name in pages} <= files
    for file in (ROOT / "amodal_core/models/weights").iterdir():
        assert f"amodal_core/models/weights/{file.name}" in files
    assert "amodal_core/views/fonts/LICENSE_DEJAVU" in files
    for config in (ROOT / "training" / "configs").rglob("*.yaml"):
        assert f"amodal_training/{config.relative_to(ROOT / 'training')}" in files


def test_the_room_for_training_is_found_under_its_installed_name(installed, tmp_path):
    """Beside a foreign package `training`, and with the configurations that came along."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("raise RuntimeError('not ours')")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(installed)!r}]\n"
        "from amodal_ros.cli._training import module\n"
        "config = module('config')\n"
        "assert config.__file__.startswith(sys.path[1]), config.__file__\n"
        "config.read('training/configs/kins/aisformer.yaml')\n"
        "print(config.__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "amodal_training.config\n"), done.stderr


def test_in_a_checkout_it_is_the_folder_training():
    code = "from amodal_ros.cli._training import module; print(module('config').__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(ROOT / "training" / "config.py")


def test_the_command_says_its_version():
    code = "from amodal_ros.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"amodal {amodal_core.__version__}\n"
