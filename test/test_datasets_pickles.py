"""Pickles of arrays and plain values are read; whatever else is in one never runs."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from amodal_core.datasets import pickles
from amodal_core.errors import InputError

VALUE = {
    "points": np.arange(12, dtype=np.float32).reshape(4, 3),
    "labels": np.array([1, 2, 3], ">u2"),
    "number": np.float64(2.5),
    "text": ["ä", b"bytes", (1, 2), {3}, None, True, 1 + 2j],
    "order": OrderedDict(a=1),
    "objects": np.array([{"a": 1}, "b"], object),
    "strings": np.array(["one", "two"]),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_values_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(VALUE, protocol=protocol))
    read = pickles.load(path)
    assert read["text"] == VALUE["text"]
    for key in ("points", "labels", "strings"):
        assert np.array_equal(read[key], VALUE[key])
        assert read[key].dtype.name == VALUE[key].dtype.name
    assert read["number"] == 2.5
    assert read["objects"][0] == {"a": 1}


class Trap:
    """Would make a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


class Quiet:
    def __reduce__(self) -> tuple:
        return (np.load, ("/etc/passwd",))


def test_code_in_a_pickle_never_runs(tmp_path: Path) -> None:
    path, sprung = tmp_path / "trap.pkl", tmp_path / "sprung"
    path.write_bytes(pickle.dumps({"points": Trap(sprung)}))
    with pytest.raises(InputError, match=r"exec.*refused"):
        pickles.load(path)
    assert not sprung.exists()
    pickle.loads(path.read_bytes())  # the trap is a real one
    assert sprung.exists()


def test_other_functions_of_numpy_are_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "trap.pkl"
    path.write_bytes(pickle.dumps(Quiet()))
    with pytest.raises(InputError, match="numpy"):
        pickles.load(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"nonsense", b"cos\nsystem\n(S'true'\ntR."])
def test_a_broken_pickle_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.pkl"):
        pickles.load(path)


def test_lists_of_names_are_read_in_either_form_of_npy(tmp_path: Path) -> None:
    names = ["1-0", "2-3"]
    np.save(tmp_path / "a.npy", np.array(names))
    np.save(tmp_path / "b.npy", np.array(names, object), allow_pickle=True)
    for file in ("a.npy", "b.npy"):
        assert pickles.load_npy(tmp_path / file).tolist() == names


def test_code_in_an_npy_never_runs(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    np.save(tmp_path / "a.npy", np.array([Trap(sprung)], object), allow_pickle=True)
    with pytest.raises(InputError):
        pickles.load_npy(tmp_path / "a.npy")
    assert not sprung.exists()
