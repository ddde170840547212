"""A run on one page: its learning curves from metrics.jsonl, its pictures, its settings."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import yaml

from amodal_core.files import write_text
from amodal_core.views.report import learning

from .config import Config, as_values
from .pictures import NAME, path_of
from .state import Progressed

PAGE = "report.html"


def write(out: Path, config: Config, progressed: Progressed) -> None:
    """Write `report.html` into the folder of a run, whole or not at all.

    Args:
        out: the folder, with metrics.jsonl.
        config: of the run.
        progressed: how far it is.
    """
    metrics = out / "metrics.jsonl"  # not there before the first `log_every` steps
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    rows = [json.loads(line) for line in lines]
    steps = sorted(int(p.stem.removeprefix("step_")) for p in (out / NAME).glob("step_*.jpg"))
    steps = [step for step in steps if step <= progressed.step]
    shown = [steps[0], steps[len(steps) // 2], steps[-1]] if steps else []
    settings = yaml.safe_dump(_plain(config), sort_keys=False, default_flow_style=None, width=100)
    page = learning.render(
        out.name,
        config.model,
        rows,
        (progressed.step, config.steps),
        config.metric,
        [
            (step, base64.b64encode(path_of(out, step).read_bytes()).decode())
            for step in dict.fromkeys(shown)
        ],
        settings,
    )
    write_text(out / PAGE, page)


def _plain(config: Config) -> dict[str, object]:
    """Settings as YAML has them: lists in place of tuples."""
    values = json.loads(json.dumps(as_values(config)))
    assert isinstance(values, dict)
    return values
