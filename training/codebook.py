"""The codebook of VRSP-Net: between its two training runs, from the data of the first one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from amodal_core.errors import InputError
from amodal_core.models.batch import Batch, make_batch
from amodal_core.models.checkpoint import read_info, save_checkpoint
from amodal_core.models.vrsp import Vrsp
from training.config import Augment, Config
from training.data import Augmented, Item, Samples, open_sources

Progress = Callable[[int, int], None]


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

    Returns:
        the number of shapes of each class, by its name.

    Raises:
        InputError: another model, data that cannot be read or has other classes, or no object.
    """
    if out.suffix != ".safetensors":
        raise InputError("a checkpoint ends in .safetensors", str(out), "name it so")
    model = Vrsp.from_checkpoint(str(checkpoint), device)
    assert isinstance(model, Vrsp)
    sources = open_sources(
        config.train, Path(config.cache), max(config.workers, 1), lambda *_: None
    )
    there = {name for data, _ in sources for name in data.classes}
    renamed = {k: v for k, v in config.class_map.items() if k in there}
    samples = Samples(sources, model.classes, renamed, config.smallest, config.least_visible)
    done = 0

    def batches() -> Iterator[Batch]:
        nonlocal done
        unchanged = Augment(flip=0.0)
        points = "points" in model.inputs
        items = Augmented(samples, unchanged, config.seed, model.config.lidar, points)
        order = [(0, n) for n in range(len(samples))]
        size = config.batch_size
        reading: DataLoader[list[list[Item] | InputError]] = DataLoader(
            items,  # type: ignore[arg-type]
            batch_sampler=[order[n : n + size] for n in range(0, len(order), size)],
            num_workers=config.workers,
            collate_fn=_as_they_are,
            worker_init_fn=_one_thread,
        )
        for part in reading:
            broken = [one for one in part if isinstance(one, InputError)]
            if broken:
                raise broken[0]
            whole = [item for one in part if isinstance(one, list) for item in one]
            yield make_batch(
                [item.frame for item in whole],
                [item.targets for item in whole],
                short_side=model.config.short_side or None,
                long_side=model.config.long_side or None,
            )
            done += len(whole)
            progress(done, len(samples))

    counts = model.build_codebook(batches(), config.seed)
    half = torch.float16 if config.store == "fp16" else None
    save_checkpoint(out, model, read_info(checkpoint), half)
    return dict(zip(model.classes, counts, strict=True))


def _as_they_are(items: list[list[Item] | InputError]) -> list[list[Item] | InputError]:
    return items


def _one_thread(_: int) -> None:
    """Readers run beside each other; threads of torch in each would only wait."""
    torch.set_num_threads(1)
