"""What only a part of the product needs: asked for nowhere else, named where it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

OPTIONAL = (
    *("matplotlib", "sklearn", "tensorboard", "moderngl", "transformers"),
    *("onnx", "onnxruntime", "onnxscript", "openvino", "pyarrow"),
)


def run_without(code: str) -> subprocess.CompletedProcess:
    """Run code where no extra is installed."""
    block = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True)


def test_nodes_replay_and_training_need_no_extra():
    done = run_without(
        "import amodal_core.replay, amodal_core.models.flagship, amodal_ros.cli.eval\n"
        "import amodal_ros.nodes.segmentation, amodal_ros.nodes.tracking\n"
        "import amodal_ros.nodes.overlay, training.train\n"
        "from amodal_core.views.text import text_size\n"
        "assert text_size('car 7', 12, bold=True) > (0, 0)\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("extra", "use"),
    [
        ("synth", "import amodal_core.synthetic.render"),
        (
            "arrow",
            "from pathlib import Path\n"
            "from amodal_core.datasets.arrow_files import read_columns\n"
            "read_columns(Path('poses.feather'), ())",
        ),
        (
            "plots",
            "from amodal_core.datasets import statistics\n"
            "statistics.plot(statistics.Statistics(), '', None)",
        ),
    ],
)
def test_a_missing_extra_is_one_line_with_the_command(extra, use):
    done = run_without(
        "from amodal_core.errors import InputError\n"
        f"try:\n    exec({use!r})\nexcept InputError as error: print(error)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"(pip install 'amodal_ros[{extra}]')\n")
