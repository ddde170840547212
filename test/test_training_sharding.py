"""One model over several devices: in shares over processes (FSDP), or cut in two (split)."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary
from training_scenes import (
    CLASSES,
    SETTINGS,
    Tiny,
    data,
    free_port,
    last,
    register_tiny,
    run_config,
    street,
    tiny,
)

from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_core.models.layers.batch import make_batch, targets_of
from training import engine, state
from training.data import with_depth
from training.distributed import joined
from training.train import train

FULL = {
    "settings": {"dropout": 0.3}, "ema": 0.9, "accumulate": 2, "batch_size": 4, "steps": 5,
    "optimiser": {"name": "adamw", "rate": 0.01, "clip": 0.1},
}  # fmt: skip


__all__ = ["data", "tiny"]


def tensors(values, name=""):
    """Every tensor of nested values by its place."""
    if torch.is_tensor(values):
        return {name: values}
    pairs = values.items() if isinstance(values, dict) else []
    return {k: v for key, part in pairs for k, v in tensors(part, f"{name}.{key}").items()}


def alike(a, b, tolerance=0.0):
    """Weights, averages and the optimiser's moments are the same."""
    for part in ("model", "ema", "optimizer"):
        ours, theirs = tensors(a[part]), tensors(b[part])
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value.shape == theirs[name].shape
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=tolerance, msg=name)


# In shares


def process(rank, world, runs, answers):
    """One process's part of several runs, one after the other; each may be told to stop."""
    register_tiny()
    torch.set_num_threads(1)
    place = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
    step_of = engine.Trainer.step
    told = []
    for port, config, stop in runs:

        def step(self, number, *rest, stop=stop):
            if number == stop and rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            # Shares are what a process holds between the steps.
            held = sum(
                getattr(p, "_local_tensor", p).numel() for p in self.state.model.parameters()
            )
            told.append(held / sum(p.numel() for p in self.state.model.parameters()))
            return step_of(self, number, *rest)

        os.environ["MASTER_PORT"] = port
        engine.Trainer.step = step
        try:
            train(config)
        except Exception as error:
            answers.put((rank, f"{config.out}: {error!r}"))
            raise
    answers.put((rank, told))


def in_two(*runs):
    """Runs in two processes; of each process, the share of the weights it held at each step."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    planned = [(free_port(), config, stop) for config, stop in runs]
    started = [context.Process(target=process, args=(r, 2, planned, answers)) for r in range(2)]
    for one in started:
        one.start()
    try:
        told = dict(answers.get(timeout=1500) for _ in started)
    finally:
        for one in started:
            one.join(10)
            one.kill()
    assert all(isinstance(t, list) for t in told.values()), told
    return [told[r] for r in range(2)]


def test_shares_give_the_same_run_stopped_or_not_as_whole_models_in_every_process(data, tmp_path):
    held_out = [{"path": str(data), "stop": 3}]  # 3 frames: one process judges more than the other

    def run(name, **changes):
        return run_config(tmp_path / name, data, held_out=held_out, **(FULL | changes))

    shares = {"sharding": "fsdp"}
    held = in_two(
        (run("whole"), None),
        (run("shares", **shares), None),
        (run("parts", **shares), 2),
        (run("parts", **shares), None),
        (run("change", **shares), 2),
        (run("change"), None),  # goes on with whole models
    )
    for told in held:
        assert set(told[:5]) == {1.0}
        assert all(share < 0.65 for share in told[5:10])
    whole = last(tmp_path / "whole")
    alike(whole, last(tmp_path / "shares"), 1e-6)
    alike(last(tmp_path / "shares"), last(tmp_path / "parts"))
    alike(whole, last(tmp_path / "change"), 1e-6)
    assert whole["progressed"]["metrics"] == pytest.approx(
        last(tmp_path / "parts")["progressed"]["metrics"], abs=1e-6
    )
    # Checkpoints for inference are whole, and the average's.
    kept = Tiny.from_checkpoint(str(tmp_path / "parts" / state.FINAL))
    averaged = last(tmp_path / "parts")["ema"]
    for name, value in kept.state_dict().items():
        assert torch.equal(value, averaged[f"module.{name}"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_model_has_the_same_gradients_in_shares(data, tmp_path):
    # A frozen detector inside, which the runs before have made.
    detector = str(tmp_path / "pointpillars_none" / state.FINAL)
    sensed = {"proposals_from": "both", "depth": "objects", "lidar_weights": detector}
    models = {name: (name, settings) for name, settings in SETTINGS.items()}
    models["lidar_objects"] = "aisformer", SETTINGS["aisformer"] | sensed
    runs = [
        (run_config(tmp_path / f"{name}_{sharding}", data, model=model, settings=settings, steps=1,
                    optimiser={"name": "sgd", "rate": 0.001}, sharding=sharding), None)
        for name, (model, settings) in models.items()
        for sharding in ("none", "fsdp")
    ]  # fmt: skip
    in_two(*runs)
    for name in models:
        whole, shares = (last(tmp_path / f"{name}_{s}") for s in ("none", "fsdp"))
        # The momentum of a first step is its gradient.
        for part in ("model", "optimizer"):
            ours, theirs = tensors(whole[part]), tensors(shares[part])
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                off = (value - theirs[key]).float().norm() / value.float().norm().clamp(min=1e-3)
                assert off < 0.01, (name, part, key)


def test_one_process_has_nobody_to_share_with(data, tmp_path):
    train(run_config(tmp_path / "alone", data, steps=2))
    train(run_config(tmp_path / "shares", data, steps=2, sharding="fsdp"))
    a, b = last(tmp_path / "alone")["model"], last(tmp_path / "shares")["model"]
    assert all(torch.equal(a[k], b[k]) for k in a)


# Cut in two

FIRST, SECOND = "first", "second"


class Halves(TorchDispatchMode):
    """Two devices on one: labels tensors with the half of a model that they are in.

    Keeps the operations that take tensors of both, which two real devices would refuse.
    """

    def __init__(self):
        super().__init__()
        self._labels = WeakIdKeyDictionary()
        self.mixing = []

    def mark(self, values, half):
        if torch.is_tensor(values):
            self._labels[values] = half
        elif is_dataclass(values):
            for field in fields(values):
                self.mark(getattr(values, field.name), half)
        elif isinstance(values, list):
            for value in values:
                self.mark(value, half)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [t for t in torch.utils._pytree.tree_leaves((args, kwargs)) if torch.is_tensor(t)]
        halves = {self._labels[t] for t in given if t in self._labels}
        if len(halves) > 1:
            self.mixing.append(str(func))
        result = func(*args, **(kwargs or {}))
        if halves:
            for value in torch.utils._pytree.tree_leaves(result):
                self.mark(value, SECOND if SECOND in halves else FIRST)
        return result


class _Over(torch.autograd.Function):
    """To the second half and, for gradients, back."""

    @staticmethod
    def forward(ctx, x, mode):
        ctx.mode, y = mode, x.clone()
        mode.mark(y, SECOND)
        return y

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        ctx.mode.mark(gradient, FIRST)
        return gradient, None


def copied(values):
    if torch.is_tensor(values):
        return values.clone()
    if is_dataclass(values):
        return type(values)(**{f.name: copied(getattr(values, f.name)) for f in fields(values)})
    return [copied(v) for v in values] if isinstance(values, list) else values


def marked(model, monkeypatch):
    """The two halves of a split model, told apart."""
    mode = Halves()
    trunk = {id(t) for m in model.trunk() for t in (*m.parameters(), *m.buffers())}
    for tensor in (*model.parameters(), *model.buffers()):
        mode.mark(tensor, FIRST if id(tensor) in trunk else SECOND)

    def crossed(batch):
        other = copied(batch)
        mode.mark(other, SECOND)
        return other

    monkeypatch.setattr(model, "crossed", crossed)
    monkeypatch.setattr(model.crossing, "forward", lambda x: _Over.apply(x, mode))
    return mode


def two_frames():
    samples = [street(seed) for seed in range(2)]
    return make_batch(
        [with_depth(s.frame) for s in samples], [targets_of(s.truth) for s in samples]
    )


def losses_and_gradients(model, batch):
    torch.manual_seed(3)
    model.zero_grad()
    losses = model.train().losses(batch)
    sum(losses.values()).backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {n: v.detach() for n, v in losses.items()}, gradients


SPLIT = [name for name in SETTINGS if name != "pointpillars"]


@pytest.mark.parametrize("name", SPLIT)
def test_a_split_model_is_the_same_and_its_halves_meet_at_the_crossing_alone(name, monkeypatch):
    torch.manual_seed(0)
    settings = {**SETTINGS[name], "classes": CLASSES, "min_score": 0.3}
    model = registry.learned(name).from_config(settings)
    batch = two_frames()
    expected = losses_and_gradients(model, batch)
    model.split("cpu", "cpu")
    crossed = []
    model.crossing.register_forward_hook(lambda *_: crossed.append(1))
    got = losses_and_gradients(model, batch)
    levels = 4 if name == "flagship" else 5
    assert len(crossed) == levels
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    with torch.no_grad():
        found = model.eval().detect(batch)
    mode = marked(model, monkeypatch)
    mode.mark(batch, FIRST)
    with mode:
        with torch.no_grad():
            again = model.eval().detect(batch)
        losses_and_gradients(model, batch)
    assert mode.mixing == []
    assert len(crossed) == 4 * levels
    for one, other in zip(again, found, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.amodal, other.amodal)


def test_what_does_not_go_through_the_crossing_is_noticed(monkeypatch):
    """The test above can fail: a model that forgets one level."""
    torch.manual_seed(0)
    model = registry.learned("flagship").from_config({"classes": CLASSES})
    model.split("cpu", "cpu")
    batch = two_frames()
    mode = marked(model, monkeypatch)
    mode.mark(batch, FIRST)
    monkeypatch.setattr(model.crossing, "forward", lambda x: x)
    with mode, torch.no_grad():
        model.eval().detect(batch)
    assert mode.mixing


def test_the_halves_of_the_flagship_compute_on_their_own_gpus():
    """On two GPUs of which only shapes and devices are real."""
    model = registry.learned("flagship").from_config({"classes": CLASSES}).eval()
    model.split("cpu", "meta")
    assert {p.device.type for m in model.trunk() for p in m.parameters()} == {"cpu"}
    gpus = {"cpu": "cuda:0", "meta": "cuda:1"}
    with FakeTensorMode(), torch.no_grad():
        weights = {
            name: torch.empty(t.shape, dtype=t.dtype, device=gpus[t.device.type])
            for name, t in (*model.named_parameters(), *model.named_buffers())
        }
        model.crossing.device = torch.device("cuda:1")
        images, depth = (torch.zeros(1, c, 64, 96, device="cuda:0") for c in (3, 2))
        out = torch.func.functional_call(model, weights, (images, depth))
    assert {str(w.device) for w in weights.values()} == {"cuda:0", "cuda:1"}
    assert {str(part.device) for part in out} == {"cuda:1"}


def test_a_split_run_is_the_same_run_and_goes_on_as_one(data, tmp_path, monkeypatch):
    whole = run_config(tmp_path / "whole", data, **FULL)
    train(whole)
    parts = run_config(tmp_path / "parts", data, **FULL, split=True)
    taken = engine.Trainer.step

    def told(self, number, *rest):
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        assert self.state.model.crossing.device == torch.device("cpu")
        return taken(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Trainer, "step", told)
        assert not train(parts).finished
    train(parts)
    alike(last(tmp_path / "whole"), last(tmp_path / "parts"))
    assert Tiny.from_checkpoint(str(tmp_path / "parts" / state.FINAL)).crossing.device is None


@pytest.mark.parametrize(("rank", "gpus"), [(0, ("cuda:0", "cuda:1")), (1, ("cuda:2", "cuda:3"))])
def test_each_process_takes_two_gpus_for_a_split_model(rank, gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    with joined("cuda", split=True) as place:
        assert (str(place.device), str(place.second)) == gpus
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(InputError, match="there are 1 GPUs"),
        joined("cuda", split=True),
    ):
        pass


def test_what_cannot_be_split_or_not_both_at_once_is_said(data, tmp_path):
    with pytest.raises(InputError, match="not sharded"):
        run_config(tmp_path / "run", data, split=True, sharding="fsdp")
    one = run_config(
        tmp_path / "run", data, model="pointpillars", settings=SETTINGS["pointpillars"], split=True
    )
    with pytest.raises(InputError, match="pointpillars cannot be split"):
        train(one)
