"""Whatever stands in an annotation, checking, reading and mending go on."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets_scenes import CLASSES, drive
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amodal_core.datasets import amodal_synth_drive_write, coco, kins, labelme, sailvos
from amodal_core.datasets.registry import open_dataset
from amodal_core.datasets.statistics import Statistics, count
from amodal_core.errors import InputError

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=True)
    | st.text(max_size=5)
    | st.just("PPYo1"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
WRITERS = {
    "kins": lambda out, s: kins.write(out, s, CLASSES),
    "kins2019": lambda out, s: kins.write(out, s, CLASSES, version=2019),
    "joint": lambda out, s: sailvos.write(out, s, CLASSES, kind="joint"),
    "visible": lambda out, s: sailvos.write(out, s, CLASSES, kind="visible"),
    "coco": lambda out, s: coco.write(out, s, CLASSES),
    "asd": lambda out, s: amodal_synth_drive_write.write(out, s, CLASSES),
    "labelme": lambda out, s: labelme.write(out, s, CLASSES),
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("hostile")
    samples = drive(np.random.default_rng(5), 2)
    for name, write in WRITERS.items():
        list(write(base / name, samples))
    return {name: base / name for name in WRITERS}


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every place inside a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key in value:
            found += _places(value[key], (*path, key))
    elif isinstance(value, list) and len(value) <= 20:
        for key, inner in enumerate(value):
            found += _places(inner, (*path, key))
    return found


def _put(content: Any, path: tuple, value: Any) -> None:
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value


@pytest.mark.parametrize("name", WRITERS)
@given(data=st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_value_anywhere_is_a_finding_or_an_input_error(
    roots: dict[str, Path], name: str, data: st.DataObject
) -> None:
    file = min(roots[name].rglob("*.json"), key=lambda p: (p.name == "calibration.json", str(p)))
    original = file.read_bytes()
    content = json.loads(original)
    changed = copy.deepcopy(content)
    _put(changed, data.draw(st.sampled_from(_places(content))), data.draw(JUNK))
    try:
        file.write_text(json.dumps(changed))
        try:
            opened = open_dataset(roots[name], "labelme" if name == "labelme" else "")
        except InputError:
            return
        for finding in opened.check():
            assert finding is None or (finding.rule and finding.what)
        list(count(opened, Statistics()))
        for index in range(len(opened)):
            try:
                truth = opened.truth(index)
            except InputError:
                continue
            assert truth is None or not (truth.visible.rle() - truth.amodal.rle()).areas().any()
        with tempfile.TemporaryDirectory() as folder:
            list(opened.fix(Path(folder) / "clean"))
    finally:
        file.write_bytes(original)
