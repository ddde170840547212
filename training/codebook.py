"""The codebook of VRSP-Net: between its two training runs, from the data of the first one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import torch

from amodal_core.errors import InputError
from amodal_core.models.checkpoint import read_info, save_checkpoint
from amodal_core.models.layers.batch import Batch, make_batch
from amodal_core.models.shape_prior import MaskCollection
from amodal_core.models.vrsp import Vrsp
from amodal_core.progress import Progress
from amodal_core.runtime.devices import check_device

from .config import Augment, Config
from .data import Augmented, loader, usable
from .sources import Samples, open_sources, render_sources

_SAVE_EVERY = 60.0  # seconds


def build_codebook(
    config: Config, checkpoint: Path, out: Path, device: str, progress: Progress
) -> dict[str, int]:
    """Write a checkpoint's copy with a codebook of the shapes in a run's training data.

    Args:
        config: of the run that the checkpoint is of.
        checkpoint: of VRSP-Net, with a trained auto-encoder.
        out: the new checkpoint.
        device: where the model runs.
        progress: called with frames done and in all.

    What is done is written beside `out` every minute, and a build that was interrupted goes on.

    Returns:
        the number of shapes of each class, by its name.

    Raises:
        InputError: another model, a device that is not there, data that cannot be read or has
            other classes, or no object.
    """
    if out.suffix != ".safetensors":
        raise InputError("a checkpoint ends in .safetensors", str(out), "name it so")
    check_device(device)
    model = Vrsp.from_checkpoint(str(checkpoint), device)
    assert isinstance(model, Vrsp)
    cache, workers = Path(config.cache), max(config.workers, 1)
    sources = open_sources(config.train, cache, lambda *_: None)
    render_sources(config.train, cache, workers, lambda *_: None)
    least = config.smallest, config.least_visible
    samples = Samples(sources, model.classes, config.class_map, *least)

    state = out.with_suffix(".part")
    run = _described(config, checkpoint)
    masks = MaskCollection(len(model.classes), config.seed)
    done, saved = masks.load(state, run), monotonic()

    def batches() -> Iterator[Batch]:
        nonlocal done
        points = "points" in model.inputs
        data = Augmented(samples, Augment(flip=0.0), config.seed, model.config.lidar, points)
        size = config.batch_size
        steps = [
            [(0, n) for n in range(first, min(first + size, len(samples)))]
            for first in range(done, len(samples), size)
        ]
        for step, clips in zip(steps, loader(data, steps, config.workers), strict=True):
            items = [item for clip in usable(clips) for item in clip]
            done = step[-1][1] + 1
            yield make_batch(
                [item.frame for item in items],
                [item.targets for item in items],
                short_side=model.config.short_side or None,
                long_side=model.config.long_side or None,
                resize=model.config.resize,
                most_pixels=model.config.most_pixels or None,
            )

    def advanced() -> None:
        nonlocal saved
        progress(done, len(samples))
        if monotonic() - saved > _SAVE_EVERY:
            masks.save(state, done, run)
            saved = monotonic()

    counts = model.build_codebook(batches(), masks, advanced)
    half = torch.float16 if config.store == "fp16" else None
    save_checkpoint(out, model, read_info(checkpoint), half)
    state.unlink(missing_ok=True)
    return dict(zip(model.classes, counts, strict=True))


def _described(config: Config, checkpoint: Path) -> str:
    """What masks depend on: the checkpoint's bytes, and the data."""
    weights = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    return repr((weights, config.train, config.class_map, config.smallest, config.least_visible))
