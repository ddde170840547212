"""The benchmarks run: on the CPU, at sizes that say nothing of speed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_script_for_gpus_measures_every_part_at_smoke_sizes(project_root, tmp_path):
    pytest.importorskip("transformers")
    command = ["bash", "benchmarks/gpu.sh", str(tmp_path), "--smoke"]
    env = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=project_root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "gpu.md").read_text()
    for part in (
        "flagship compact, torch",
        "S-AModal tiny, 1 objects",
        "20 objects",
        "torchvision",
    ):
        assert part in table
    numbers = [float(line.split("|")[2]) for line in table.splitlines() if "320x96 |" in line]
    assert len(numbers) == 3
    assert min(numbers) > 0
