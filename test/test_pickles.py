"""Pickles of arrays and plain values are read; whatever else is in one never runs."""

from __future__ import annotations

import pickle
import time
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import pytest
import torch

from amodal_core import limits, pickles
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


def pickled(*parts: bytes) -> bytes:
    """A pickle of protocol 2 from its instructions."""
    return b"\x80\x02" + b"".join(parts) + b"."


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"


def state(shape: bytes, kind: str, data: bytes) -> bytes:
    """The state of an array, as NumPy writes it."""
    dtype = b"cnumpy\ndtype\nX" + len(kind).to_bytes(4, "little") + kind.encode() + b"\x85R"
    return b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


def test_arrays_spelt_out_by_hand_are_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickled(ARRAY, state(b"K\x02\x85", "u1", b"U\x02ab")))
    assert pickles.load(path).tolist() == [97, 98]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        # An address of the file's choosing in the place of an object.
        (pickled(ARRAY, state(b"K\x01\x85", "O8", b"U\x08AAAAAAAA")), "type O8"),
        (pickled(ARRAY, state(b"K\x01\x85", "|O", b"U\x08AAAAAAAA")), "type"),
        (pickled(ARRAY, state(b"K\x03\x85", "u1", b"U\x02ab")), "2 bytes for an array"),
        (pickled(ARRAY, state(b"J\xff\xff\xff\x7f\x85", "O", b"]")), "0 objects for an array"),
        (pickled(ARRAY, state(b"J\xff\xff\xff\xff\x85", "u1", b"U\x02ab")), "shape"),
        (pickled(ARRAY, state(b"K\x02\x85", "(9999999,)u1", b"U\x02ab")), "type"),
        (pickled(ARRAY, state(b"K\x02\x85", "u1,O", b"U\x02ab")), "type"),
        (pickled(ARRAY), "without a state"),
        # Room by the file's word.
        (pickled(b"c__builtin__\nbytearray\n\x8a\x05\x00\xbc\xa0\x65\x01\x85R"), "spelt out"),
        (pickled(b"c__builtin__\nrange\nK\x05\x85R"), "asks for"),
        (b"\x80\x05\x96" + (6 * 10**9).to_bytes(8, "little") + b"ab.", "bytes in a file"),
        (pickled(b"c__builtin__\nset\nX\x02\x00\x00\x00ab\x85R"), "something else"),
        # Calls and states of what is no array.
        (pickled(b"c__builtin__\nset\n}b"), "state of something else"),
        (pickled(b"K\x05)R"), "call of something else"),
        (pickled(b"c__builtin__\nset\n)\x81"), "no pickle"),
        (pickled(b"]" * 100_000), "no pickle|^$"),
    ],
)  # fmt: skip
def test_no_pickle_has_memory_of_its_choosing(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    if says.endswith("^$"):  # many lists are just that
        assert pickles.load(path) == []
        return
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=says):
            pickles.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def doubled(kind: bytes, levels: int) -> bytes:
    """A list or tuple of the one before twice, and so on; left on the stack."""
    made = {b"]": b"0](h%ch%ceq%c", b")": b"0h%ch%c\x86q%c"}[kind]
    return kind + b"q\0" + b"".join(made % (k, k, k + 1) for k in range(levels))


def crowd(between: bytes = b"") -> bytes:
    """Integers that all have the hash of 0, each followed by `between`."""
    numbers = (k * (2**61 - 1) for k in range(1, 20_000))
    return b"".join(b"\x8a\x0a" + n.to_bytes(10, "little") + between for n in numbers)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"}" + doubled(b")", 60) + b"Ns", "a key of more than"),
        (b"}(" + doubled(b")", 60) + b"Nu", "a key of more than"),
        (b"(" + doubled(b")", 60) + b"Nd", "a key of more than"),
        (b"\x8f(" + doubled(b")", 60) + b"\x90", "a key of more than"),
        (b"(" + doubled(b")", 60) + b"\x91", "a key of more than"),
        (b"cbuiltins\nset\n](" + doubled(b")", 60) + b"e\x85R", "a key of more than"),
        (b"ccollections\nOrderedDict\n](" + doubled(b")", 60) + b"N\x86e\x85R", "a key of more"),
        (b"}(" + crowd(b"N") + b"u", "told apart by nothing"),
        (b"}" + crowd(b"Ns"), "told apart by nothing"),
        (b"(" + crowd(b"N") + b"d", "told apart by nothing"),
        (b"\x8f(" + crowd() + b"\x90", "told apart by nothing"),
        (b"\x8f" + crowd(b"\x90").replace(b"\x8a\x0a", b"(\x8a\x0a"), "told apart by nothing"),
        (b"(" + crowd() + b"\x91", "told apart by nothing"),
        (doubled(b"]", 40), "repeats its parts"),
        (doubled(b")", 40), "repeats its parts"),
        (b"]q\0h\0a", "holds itself"),
        (b"}q\0K\1h\0s", "holds itself"),
    ],
    ids=range(17),
)
def test_a_small_pickle_does_not_stand_for_endless_work(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\4" + content + b".")
    begin = time.process_time()
    with pytest.raises(InputError, match=says):
        pickles.load(path)
    assert time.process_time() - begin < 2


def test_parts_that_are_named_again_stay_one(tmp_path: Path) -> None:
    size = [3, 4]
    value = {"a": size, "b": [size, size], (1, (2, "x")): {5, (6, 7)}, "c": frozenset([1])}
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value))
    read = pickles.load(path)
    assert read == value
    assert read["a"] is read["b"][0] is read["b"][1]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (10**12,), }",
        b"\x93NUMPY\x01\x00" + (62).to_bytes(2, "little")
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,)}" [:61] + b"\n",
        b"\x93NUMPY\x07\x00",
    ],
)  # fmt: skip
def test_a_broken_npy_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.npy: no array"):
        pickles.load_npy(path)


class Tensor:
    """Pickled as a tensor of four numbers with another shape."""

    def __init__(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.state = torch.zeros(4)._typed_storage(), offset, shape, strides, False, OrderedDict()

    def __reduce__(self) -> tuple[object, ...]:
        return torch._utils._rebuild_tensor_v2, self.state


def test_tensors_that_numpy_pickled_are_arrays(tmp_path: Path) -> None:
    path = tmp_path / "codebook.npy"
    tensors = {0: torch.arange(12.0).view(3, 4).T[1:], 1: torch.zeros(0, 4).half()}
    np.save(path, tensors)
    read = pickles.load_npy(path)[()]
    assert all(np.array_equal(read[k], t.numpy()) for k, t in tensors.items())
    for shape in ((1, (4,), (1,)), (0, (9, 9), (0, 0)), (0, (2, 2), (1, 9)), (0, (2,), (1, 1))):
        np.save(path, np.array({0: Tensor(*shape)}, object))
        with pytest.raises(InputError, match="a tensor of shape"):
            pickles.load_npy(path)


def test_arrays_of_an_npz_are_read_one_by_one_and_take_no_memory_by_their_word(
    tmp_path: Path,
) -> None:
    path, names = tmp_path / "a.npz", np.array(["one", "two"])
    np.savez_compressed(path, points=np.eye(3), names=names)
    with pickles.Arrays(path) as arrays:
        assert sorted(arrays) == ["names", "points"]
        assert np.array_equal(arrays["points"], np.eye(3))
        assert np.array_equal(arrays["names"], names)
        assert arrays.get("absent") is None
    data = path.read_bytes()
    with ZipFile(path, "w") as file:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,)}\n"
        file.writestr("a.npy", b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header)
    with pickles.Arrays(path) as arrays, pytest.raises(ValueError, match="0 bytes for an array"):
        arrays["a"]
    path.write_bytes(data[:-30])
    with pytest.raises(BadZipFile):
        pickles.Arrays(path)


def test_a_packed_array_that_would_unpack_to_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, zeros=np.zeros(10_000))
    monkeypatch.setattr(limits, "UNPACKED", 10_000)
    with pickles.Arrays(path) as arrays, pytest.raises(ValueError, match="would unpack to 80128"):
        arrays["zeros"]
