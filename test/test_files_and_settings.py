"""Files are whole or not there; settings that do not fit are refused in one line."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import pytest
from pydantic import Field

from amodal_core.errors import InputError
from amodal_core.files import atomic, folder_beside, write_json
from amodal_core.settings import checked, parse_rules, settings_type
from amodal_core.yaml_texts import parse_yaml
from amodal_ros.cli import main as cli


@settings_type
class Inner:
    cells: int = 3


@settings_type
class Outer:
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.5
    name: str = "a"
    inner: Inner = Inner()

    def __post_init__(self):
        if self.name == "b" and self.min_score > 0.8:
            raise ValueError("B takes no min_score above 0.8")


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with atomic(path) as part:
        part.write_text("new")
        assert part.suffix == ".json"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_older_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail():
        with atomic(path) as part:
            part.write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_that_cannot_be_written_leaves_the_older_file(tmp_path):
    path = tmp_path / "a.json"
    write_json({"a": [1, 2]}, path)
    with pytest.raises(TypeError):
        write_json({"a": object()}, path)
    assert path.read_text() == '{"a": [1, 2]}'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_beside_a_path_is_gone_with_its_block(tmp_path):
    path = tmp_path / "bag"
    with folder_beside(path) as killed:
        pass
    (killed / "left").mkdir(parents=True)
    with folder_beside(path) as folder:
        assert list(folder.iterdir()) == []
        (folder / "a").write_text("a")
        (folder / "a").replace(path)
    assert list(tmp_path.iterdir()) == [path]


def test_settings_are_made_from_plain_values():
    made = checked(Outer, {"min_score": 1, "inner": {"cells": 5}}, "--set")
    assert made == Outer(1.0, "a", Inner(5))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"min_score": "abc"}, "--set: min_score: input should be a valid number.*got 'abc'"),
        ({"min_score": 2}, "--set: min_score: .*less than or equal to 1.*got 2"),
        ({"min_score": float("nan")}, "--set: min_score: .*finite number"),
        ({"min_scor": 1}, "--set: no setting 'min_scor'.*did you mean min_score"),
        ({"inner": {"cell": 1}}, "--set: no setting 'inner.cell'.*did you mean cells"),
        ({"inner": {"cells": 1.5}}, "--set: inner.cells: .*valid integer"),
        ({"name": "b", "min_score": 0.9}, "--set: b takes no min_score.*got min_score=0.9"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(values, line):
    with pytest.raises(InputError, match=line):
        checked(Outer, values, "--set")


def test_rules_are_yaml_values():
    assert parse_rules(["a=0.3", "b=[1, 2]", "c="], "--set") == {"a": 0.3, "b": [1, 2], "c": ""}
    with pytest.raises(InputError, match="'a' is not setting=value"):
        parse_rules(["a"], "--set")


def test_an_error_is_one_line_that_any_terminal_shows():
    error = InputError("a\n  b \x1b[31mred\udcff", "x" * 5000, "mend\tit")
    assert "\n" not in str(error)
    assert str(error).isprintable()
    assert "a b \\x1b[31mred\\udcff (mend it)" in str(error)
    assert len(str(error)) < 1000


def test_brackets_of_a_file_are_no_markup_of_the_command_line(monkeypatch, capfd):
    def fails():
        raise InputError("a value [/x] of [red]this[/red]", "[camera]")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit):
        cli.main()
    assert "[camera]: a value [/x] of [red]this[/red]" in capfd.readouterr().err


LAUGHS = "a: &a [1, 1]\n" + "".join(
    f"{n}: &{n} [{', '.join(['*' + m] * 10)}]\n" for m, n in pairwise("abcdefgh")
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGHS, "over 100000 values"),
        ("a: &a [*a]", "holds itself"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "1" * 5000, "4300 digits"),
        ("a: 2011-13-45 99:99:99", "month must be"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: [1", "expected"),
        (b"\xff", "decode byte 0xff"),
    ],
)
def test_yaml_of_any_kind_is_values_or_one_error(text, says):
    with pytest.raises(InputError, match=says):
        parse_yaml(text, "file.yaml")
    if isinstance(text, str) and "a: 2" in text:
        with pytest.raises(InputError, match=r"--set a: .*is no YAML value"):
            parse_rules([f"a={text[3:]}"], "--set")


def test_aliases_and_merges_of_plain_yaml_are_read():
    text = "base: &b {x: 1, y: [1, 2]}\nmore: {<<: *b, x: 2}\nlist: [*b, *b]"
    value = parse_yaml(text, "file.yaml")
    assert value["more"] == {"x": 2, "y": [1, 2]}
    assert value["list"] == [value["base"]] * 2
    assert parse_yaml("", "file.yaml") is None
