"""A large JSON is read by its index exactly as the json module would read it whole."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from amodal_core.datasets.json_index import JsonIndex
from amodal_core.datasets.json_write import JsonWriter
from amodal_core.errors import InputError

NASTY = {
    "info": {"images": [{"image_id": 3}], "text": 'brackets ]}[{ and "quotes\\" in text'},
    "images": [{"id": 7, "file_name": 'a{]"\\.png'}, {"id": -2, "file_name": "ü"}],
    "annotations": [
        {"id": 1, "image_id": 7, "deep": {"image_id": 99, "list": [[1, 2], {"image_id": 98}]}},
        {"image_id": -2, "id": 2, "image_id_of_someone_else": 5},
        {"id": 3, "note": '"image_id": 4', "image_id": 7},
        {"id": 4},
    ],
    "categories": [{"id": 1, "name": "car"}],
}


@pytest.mark.parametrize("indent", [None, 1])
def test_elements_are_those_of_the_json_module(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(NASTY, indent=indent))
    index = JsonIndex(path)
    for name in ("images", "annotations", "categories"):
        assert list(index.elements(name)) == NASTY[name]
    assert index.top == ("info", "images", "annotations", "categories")
    assert index.annotations_of(7).tolist() == [0, 2]
    assert index.annotations_of(-2).tolist() == [1]
    assert index.annotations_of(99).tolist() == []


def test_an_index_survives_the_way_to_another_process(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(NASTY))
    index = JsonIndex(path)
    index.element("annotations", 0)
    again = pickle.loads(pickle.dumps(index))
    assert again.element("annotations", 2) == NASTY["annotations"][2]


@pytest.mark.parametrize("content", ["", '{"images": [{"id": 1', '{"images": ["', "}{"])
def test_a_cut_off_file_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cut.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"cut\.json"):
        JsonIndex(path)


def test_one_malformed_element_leaves_the_others_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"annotations": [{"id": 1}, {"id": nonsense}, {"id": 3}]}')
    index = JsonIndex(path)
    assert index.element("annotations", 2) == {"id": 3}
    with pytest.raises(InputError, match="element 1"):
        index.element("annotations", 1)


def test_a_writer_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with JsonWriter(tmp_path / "a.json") as writer:
            writer.annotation({"id": 1})
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_fails_at_its_end_leaves_no_file(tmp_path: Path, monkeypatch) -> None:
    def fail() -> None:
        with JsonWriter(tmp_path / "a.json") as writer:
            writer.annotation({"id": 1})
            writer.extend("images", NASTY["images"])
            monkeypatch.setattr("amodal_core.datasets.json_write.dumps", full)

    def full(_: object) -> str:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    with JsonWriter(tmp_path / "a.json") as writer:
        for annotation in NASTY["annotations"]:
            writer.annotation(annotation)
        writer.extend("images", NASTY["images"])
        writer.extend("categories", [])
    content = json.loads((tmp_path / "a.json").read_text())
    assert content == {
        "annotations": NASTY["annotations"],
        "images": NASTY["images"],
        "categories": [],
    }
