"""Packed bytes come back whole, up to a limit; beyond it nothing is given for them."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import resource
import zipfile

import lz4.frame
import numpy as np
import pytest
import torch
from rosbags.rosbag2.storage_mcap import zstd

from amodal_core import limits
from amodal_core.errors import InputError
from amodal_core.models.imports.files import read_file
from amodal_core.models.layers.weights import read_weights
from amodal_core.unpacking import unpack

PACK = {
    "zstd": zstd.compress,
    "lz4": lz4.frame.compress,
    "bz2": bz2.compress,
    "gzip": gzip.compress,
}
DATA = np.random.default_rng(1).bytes(3_000_000) + bytes(3_000_000)


@pytest.mark.parametrize("kind", PACK)
def test_frames_come_back_whole_and_no_further_than_the_limit(kind):
    packed = PACK[kind](DATA)
    assert unpack(packed, kind) == unpack(packed, kind, len(DATA)) == DATA
    assert unpack(packed + PACK[kind](b"x"), kind) == DATA + b"x"
    assert unpack(PACK[kind](b""), kind) == unpack(b"", kind) == b""
    with pytest.raises(ValueError, match="more than 5999999 bytes"):
        unpack(packed, kind, len(DATA) - 1)


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("length", [3, 1000, -1])
def test_frames_that_are_cut_off_are_not_taken_for_whole(kind, length):
    with pytest.raises((ValueError, EOFError)):
        unpack(PACK[kind](DATA[:100_000])[:length], kind)


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_takes_no_more_than_the_limit(kind, monkeypatch):
    monkeypatch.setattr(limits, "UNPACKED", 2**20)
    packed = PACK[kind](bytes(2**27))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="more than 1048576 bytes"):
        unpack(packed, kind)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16


def test_weights_that_unpack_to_more_than_the_limit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "UNPACKED", 2**20)
    path = tmp_path / "a.pth.gz"
    path.write_bytes(gzip.compress(bytes(2**24)))
    with pytest.raises(InputError, match=r"a\.pth\.gz: not a file of weights: it would unpack"):
        read_file(path)


def saved(state, *, zipped=True):
    """What torch writes."""
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def rewritten(content, change, packing=zipfile.ZIP_STORED, extra=b""):
    """The archive with another pickle in it."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w", packing) as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith("data.pkl") else data)
        if extra:
            new.writestr("archive/data/9", extra)
    return result.getvalue()


ONES = {"a.weight": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}
PATHS = b"}" + b")q\0" + b"".join(b"0h%ch%c\x86q%c" % (k, k, k + 1) for k in range(60)) + b"Ns."
WIDE = (b"K\x02K\x03\x86q", b"J\xff\xff\xff\x7fK\x01\x86q"), (b"K\x03K\x01\x86", b"K\x00K\x00\x86")


def widened(pickle):
    """Two thousand million times the first number."""
    for old, new in WIDE:
        assert old in pickle
        pickle = pickle.replace(old, new)
    return pickle


@pytest.mark.parametrize("read", [read_file, read_weights])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (rewritten(saved(ONES), lambda _: b"\x80\2" + PATHS), "a key of more than"),
        (rewritten(saved(ONES), widened), "bytes that are not in it"),
        (rewritten(saved(ONES), bytes, zipfile.ZIP_DEFLATED, bytes(2**24)), "packed members"),
    ],
    ids=["keys", "strides", "members"],
)
def test_weights_of_torch_do_not_stand_for_endless_work_or_memory(
    read, content, says, tmp_path, monkeypatch
):
    path = tmp_path / "a.pth"
    path.write_bytes(saved(ONES))
    read(path)
    monkeypatch.setattr(limits, "UNPACKED", 2**20)
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_weights_are_walked_through(zipped, tmp_path):
    """Settings as classes, sets, parameters, sparse tensors: torch's own affair."""
    other = {"size": torch.Size([2]), "set": {1, 2}, "when": datetime.date(2020, 1, 1)}
    state = {"state_dict": ONES | {"c": torch.nn.Parameter(torch.ones(2))}, "config": other}
    path = tmp_path / "a.pth"
    path.write_bytes(saved(state, zipped=zipped))
    assert set(read_file(path).tensors) == {"a.weight", "b", "c"}


def test_tables_that_name_themselves_end(tmp_path):
    state = {"a.weight": torch.ones(2)}
    state["model"] = state["state_dict"] = state
    path = tmp_path / "a.pth"
    path.write_bytes(saved(state))
    assert set(read_file(path).tensors) == {"a.weight"}
