"""Several processes: the same weights as one process with the same samples a step."""

from __future__ import annotations

import json
import multiprocessing
import os

import pytest
import torch
from training_scenes import data, free_port, register_tiny, run_config, tiny

from amodal_core.errors import InputError
from training import state
from training.data import StepSampler
from training.train import train

SETTINGS = {"steps": 4, "batch_size": 4, "ema": 0.9, "workers": 0, "log_every": 1}


__all__ = ["data", "tiny"]


def one_process(rank, world, port, config, answers):
    place = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
    register_tiny()
    try:
        train(config)
        answers.put((rank, ""))
    except InputError as error:
        answers.put((rank, str(error)))


def together(config, world=2):
    """What each of the processes that torchrun would start says in the end, "" for success."""
    # Not forked: OpenMP's threads, which earlier tests have started, do not survive that.
    context = multiprocessing.get_context("spawn")
    answers, port = context.Queue(), free_port()
    started = [
        context.Process(target=one_process, args=(r, world, port, config, answers))
        for r in range(world)
    ]
    for process in started:
        process.start()
    try:
        told = dict(answers.get(timeout=120) for _ in started)
    finally:
        for process in started:
            process.join(10)
            process.kill()
    return [told[r] for r in range(world)]


def test_two_processes_equal_one_with_the_same_samples_a_step(data, tmp_path, capfd):
    held_out = [{"path": str(data), "stop": 3}]
    alone = run_config(tmp_path / "alone", data, held_out=held_out, **SETTINGS)
    outcome = train(alone)
    both = run_config(tmp_path / "both", data, held_out=held_out, accumulate=2, **SETTINGS)
    assert together(both) == ["", ""]
    assert "find_unused_parameters" not in capfd.readouterr().err
    a, b = (
        torch.load(c / state.LAST, weights_only=True)
        for c in (tmp_path / "alone", tmp_path / "both")
    )
    for part in ("model", "ema"):
        for name, value in a[part].items():
            assert torch.allclose(value.float(), b[part][name].float(), atol=1e-5), (part, name)
    # Means over processes, and the held-out split shared out and put together again.
    rows = [
        [json.loads(s) for s in (tmp_path / n / "metrics.jsonl").open()] for n in ("alone", "both")
    ]
    for one, other in zip(*rows, strict=True):
        assert one["step"] == other["step"]
        if one["group"] == "train":
            assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)
    assert rows[1][-1]["amodal AP50"] == pytest.approx(outcome.metrics["amodal AP50"], abs=1e-6)


def test_all_processes_stop_where_one_has_a_broken_loss(data, tmp_path):
    explodes = {"explode": 2, "rank": 1}
    first, second = together(run_config(tmp_path / "run", data, settings=explodes, **SETTINGS))
    assert "of another process is not finite at step 1" in first
    assert "the loss is not finite at step 1: pixels nan" in second
    assert [p.name for p in (tmp_path / "run").glob("*.pt")] == ["broken_batch_rank1.pt"]


@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)])
def test_every_division_of_a_step_sees_the_same_samples(world, parts):
    def steps(world, parts):
        ranks = [
            list(StepSampler(7, 4, accumulate=parts, rank=r, world=world, seed=3, start=1, steps=6))
            for r in range(world)
        ]
        return [
            sorted(s for rank in ranks for part in rank[k * parts : (k + 1) * parts] for s in part)
            for k in range(5)
        ]

    assert steps(world, parts) == steps(1, 1)


def test_every_sample_comes_once_an_epoch_in_another_order_each_time():
    seen = [s for batch in StepSampler(6, 4, seed=1, steps=6) for s in batch]
    epochs = [[i for e, i in seen if e == k] for k in range(4)]
    assert [sorted(e) for e in epochs] == [list(range(6))] * 4
    assert len({tuple(e) for e in epochs}) > 1


def test_a_run_that_begins_later_sees_what_would_have_come():
    whole = list(StepSampler(5, 2, seed=1, steps=9))
    assert list(StepSampler(5, 2, seed=1, start=4, steps=9)) == whole[4:]
