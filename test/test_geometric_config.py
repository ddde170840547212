"""The settings of `geometric`: one file that says all, checked wherever they come from."""

from __future__ import annotations

from dataclasses import is_dataclass

import numpy as np
import pytest
import yaml
from geometry_scenes import camera, scan, standing

from amodal_core.errors import InputError
from amodal_core.frame import Frame
from amodal_core.geometry.config import GeometricConfig
from amodal_core.models.geometric import Geometric
from amodal_core.models.registry import create
from amodal_core.settings import as_yaml, checked, parse_rules


def test_the_shipped_file_holds_every_default_with_its_meaning(project_root):
    text = (project_root / "config" / "geometric.yaml").read_text()
    assert text == as_yaml(GeometricConfig), "write as_yaml(GeometricConfig) to the file"
    assert checked(GeometricConfig, yaml.safe_load(text), "file") == GeometricConfig()


def test_every_setting_says_what_it_is():
    def check(settings):
        assert type(settings).__doc__
        for name, field in type(settings).__pydantic_fields__.items():
            value = getattr(settings, name)
            if is_dataclass(value):
                check(value)
            elif name != "slices":
                assert field.description, f"{type(settings).__name__}.{name}"

    check(GeometricConfig())


def test_a_vehicle_changes_some_settings_by_file_and_option(tmp_path):
    file = tmp_path / "vehicle.yaml"
    file.write_text(
        "cluster:\n  min_points: 20\n  angle: 8\nsizes:\n  car:\n    width: [2, 1.5, 3]\n"
    )
    model = create("geometric", **parse_rules([str(file), "cluster.min_points=30"], "--set"))
    assert isinstance(model, Geometric)
    assert model.config.cluster.min_points == 30
    assert model.config.cluster.angle == 8.0
    assert model.config.sizes.car.width == (2.0, 1.5, 3.0)
    assert model.config.sizes.car.length == GeometricConfig().sizes.car.length
    points, _ = scan([standing(40, 0, 4.2, 1.8, 1.5)], seed=1)
    frame = Frame(0, points=points, calibration=camera())
    found = [
        len(create("geometric", cluster={"min_points": count}).infer([frame])[0])
        for count in (12, 10_000)
    ]
    assert found == [1, 0]


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("cluster.min_point=20", r"no setting 'cluster.min_point' \(did you mean min_points\?\)"),
        ("cluster.angle=200", r"cluster.angle: .*less than or equal to 90 \(got 200\)"),
        ("cluster.angle=steep", r"cluster.angle: .*number.*'steep'"),
        ("cluster.lowest=4.5", "lowest must not be above highest"),
        ("cluster=3", "cluster: "),
        ("sizes.car.length=[1, 2, 3]", "usual, least and greatest"),
        ("ground.reach=500", None),
        ("ground.cell=0.1", "2 to 1000 cells"),
        ("min_score=.nan", "min_score: "),
    ],
)
def test_a_wrong_setting_is_one_line(rule, line):
    values = parse_rules([rule], "--set")
    if line is None:
        assert np.isclose(checked(GeometricConfig, values, "x").ground.reach, 500)
        return
    with pytest.raises(InputError, match=line) as error:
        create("geometric", **values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["a: [", "just words", "- 1", None])
def test_a_file_without_settings_is_one_line(tmp_path, text):
    file = tmp_path / "broken.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match="no settings") as error:
        parse_rules([str(file)], "--set")
    assert "\n" not in str(error.value)
