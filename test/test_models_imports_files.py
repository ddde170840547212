"""Files of weights: all wrappings are read, nothing in them is run; the command for them."""

from __future__ import annotations

import gzip
import os
import pickle
from typing import ClassVar

import numpy as np
import pytest
import seeded_weights
import torch
from seeded_weights import Mine
from typer.testing import CliRunner

from amodal_core.errors import InputError
from amodal_core.models.checkpoint import read_info
from amodal_core.models.imports.files import read_file
from amodal_ros.cli import main as cli
from amodal_ros.cli.weights import named_classes


class Harm:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class TestFiles:
    state: ClassVar = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}

    @pytest.mark.parametrize("outer", ["state_dict", "model", "model_state", "ema", ""])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_wrapped_tables_are_found(self, outer, prefix, tmp_path):
        state = {prefix + name: value for name, value in self.state.items()}
        torch.save({outer: state, "epoch": 3} if outer else state, tmp_path / "x.pth")
        file = read_file(tmp_path / "x.pth")
        assert list(file.tensors) == ["a", "b"]
        assert torch.equal(file.tensors["a"], self.state["a"])
        assert not outer or file.meta["epoch"] == 3

    @pytest.mark.parametrize("zipped", [True, False])
    def test_objects_beside_the_tensors_are_passed_over(self, zipped, tmp_path):
        value = {"state_dict": self.state, "log": Mine(), "meta": {"CLASSES": ("car", "van")}}
        torch.save(value, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        file = read_file(tmp_path / "x.pth")
        assert torch.equal(file.tensors["b"], self.state["b"])
        assert file.meta["meta"]["CLASSES"] == ("car", "van")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_nothing_that_a_file_asks_for_is_run(self, zipped, tmp_path):
        made = tmp_path / "made"
        value = {"state_dict": self.state, "log": Harm(str(made))}
        torch.save(value, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        read_file(tmp_path / "x.pth")
        (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": Harm(str(made))}))
        with pytest.raises(InputError, match="mkdir"):
            read_file(tmp_path / "x.pkl")
        assert not made.exists()

    def test_pickles_of_arrays_and_packed_files_are_read(self, tmp_path):
        arrays = {name: value.numpy() for name, value in self.state.items()}
        value = {"model": arrays, "__author__": "someone", "matching_heuristics": True}
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(value))
        torch.save(self.state, tmp_path / "x.pth")
        (tmp_path / "x.pth.gz").write_bytes(gzip.compress((tmp_path / "x.pth").read_bytes()))
        np.save(tmp_path / "x.npy", np.array(arrays, object), allow_pickle=True)
        for name in ("x.pkl", "x.pth.gz", "x.npy"):
            assert torch.equal(read_file(tmp_path / name).tensors["a"], self.state["a"]), name

    def test_what_is_no_file_of_weights_is_said(self, tmp_path):
        with pytest.raises(InputError, match="no such weights"):
            read_file(tmp_path / "x.pth")
        for name in ("x.pth", "x.pkl", "x.npy", "x.safetensors", "x.gz"):
            (tmp_path / name).write_bytes(b"\x1f\x8bnothing")
            with pytest.raises(InputError, match="not a file of weights"):
                read_file(tmp_path / name)
        torch.save([1, 2], tmp_path / "x.pth")
        with pytest.raises(InputError, match="no table of tensors"):
            read_file(tmp_path / "x.pth")


class TestCommand:
    def test_a_file_becomes_a_checkpoint_or_the_reason_is_one_line(self, tmp_path):
        shapes, _ = seeded_weights.read("s_amodal_normal")
        torch.save(seeded_weights.state_of(shapes), tmp_path / "net_best.pth")
        out = tmp_path / "x.safetensors"
        command = ["weights", "import", str(tmp_path / "net_best.pth"), "--out", str(out)]
        done = CliRunner().invoke(
            cli.app,
            [*command, "--model", "s_amodal", "--set", "encoder=normal", "--set", "detector="],
        )
        assert (done.exit_code, done.stdout) == (0, f"{out}\n")
        assert read_info(out).config["encoder"] == "normal"
        done = CliRunner().invoke(cli.app, [*command, "--model", "vrsp"])
        assert isinstance(done.exception, InputError)
        assert "weights of S-AModal, which 'vrsp' cannot take" in done.exception.what
        done = CliRunner().invoke(cli.app, [*command, "--model", "s_amodal", "--style", "tf"])
        assert "'tf' is no style" in str(done.exception)

    def test_classes_are_named_or_read_from_annotations(self, tmp_path):
        path = tmp_path / "a.json"
        path.write_text('{"categories": [{"id": 7, "name": "van"}, {"id": 2, "name": "car"}]}')
        assert named_classes(str(path)) == ["car", "van"]
        assert named_classes("car, van") == ["car", "van"]
        assert named_classes("") == []
        path.write_text('{"images": []}')
        with pytest.raises(InputError, match="not COCO annotations"):
            named_classes(str(path))
