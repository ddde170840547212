"""What only a part of the product needs: asked for nowhere else, named where it is missing."""

from __future__ import annotations

import pytest
from without_extras import run_without


def test_nodes_replay_and_evaluation_need_no_extra():
    done = run_without(
        "import amodal_core.replay, amodal_core.models.fused, amodal_ros.cli.eval\n"
        "import amodal_ros.nodes.segmentation, amodal_ros.nodes.tracking\n"
        "import amodal_ros.nodes.overlay\n"
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
        (
            "torch",
            "from amodal_core.models.registry import create\ncreate('orcnn', checkpoint='x')",
        ),
        ("train", "from amodal_ros.cli._training import module\nmodule('train')"),
        (
            "supervision",
            "from amodal_core.frame import Tracks\nTracks.empty((4, 4)).to_supervision()",
        ),
        (
            "views",
            "from amodal_core.views.rerun_file import recording\n"
            "with recording('x.rrd', [''], [()]): pass",
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


def test_a_command_that_needs_torch_says_how_to_get_it():
    done = run_without(
        "import sys\nfrom amodal_ros.cli.main import main\n"
        "sys.argv = ['amodal', 'export', 'x.safetensors', '--out', 'x.onnx']\nmain()"
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("(pip install 'amodal_ros[torch]')\n")
