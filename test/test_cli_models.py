"""`amodal models`: names, and every setting of a model with type, default, range and meaning."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field
from typer.testing import CliRunner

from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_core.settings import Setting, Share, described, settings_type
from amodal_ros.cli.main import app


@settings_type
class Inner:
    """A group.

    Attributes:
        depth: metres, so
            far.
    """

    depth: Annotated[float, Field(gt=0, lt=9)] = 2.0


@settings_type
class Outer:
    """Settings.

    Attributes:
        mode: how.
        names: of classes.
        group: has no line of its own.
    """

    names: tuple[str, ...]
    mode: Literal["a", "b"] = "a"
    share: Annotated[Share, Field(description="from its field")] = 0.5
    most: int | None = None
    group: Inner = Inner()


def test_settings_are_described_by_their_type():
    assert list(described(Outer)) == [
        Setting("names", "list of text", "", "", "of classes."),
        Setting("mode", "a | b", '"a"', "", "how."),
        Setting("share", "float", "0.5", ">= 0, <= 1", "from its field"),
        Setting("most", "int or null", "null", "", ""),
        Setting("group.depth", "float", "2.0", "> 0, < 9", "metres, so far."),
    ]


def test_no_setting_of_any_model_is_without_a_meaning():
    for name in registry.available():
        settings = list(described(registry.settings_of(name)))
        assert settings
        assert not [one.name for one in settings if not one.description]


def test_the_command_lists_models_and_the_settings_of_one():
    result = CliRunner().invoke(app, ["models"])
    assert all(name in result.output for name in registry.available())
    result = CliRunner().invoke(app, ["models", "fused"], env={"COLUMNS": "200"})
    row = next(line for line in result.output.splitlines() if "depth_share" in line)
    assert row.split()[:5] == ["depth_share", "float", "0.15", ">=", "0,"]
    with pytest.raises(InputError, match="there is no model 'none'"):
        CliRunner().invoke(app, ["models", "none"], catch_exceptions=False)
