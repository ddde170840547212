"""Training gets its batches whatever is broken, and is told what was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets_scenes import CLASSES, same_masks, sample

from amodal_core.datasets import kins
from amodal_core.datasets.loading import Batch, Loader, collate
from amodal_core.datasets.registry import open_dataset
from amodal_core.frame import Sample

SIZES = [(60, 100), (61, 98), (58, 104), (60, 100), (60, 100), (62, 90), (60, 100)]


@pytest.fixture
def root(rng: np.random.Generator, tmp_path: Path) -> Path:
    list(kins.write(tmp_path / "kins", [sample(rng, s) for s in SIZES], CLASSES))
    return tmp_path / "kins"


def _names(batches: list[Batch]) -> list[str]:
    return [s.name for b in batches for s in b.samples]


def test_images_of_different_sizes_share_a_padded_batch(root: Path) -> None:
    data = open_dataset(root)
    batch = collate([data[0], data[1], data[2]])
    assert batch.images.shape == (3, 3, 61, 104)
    assert batch.images.dtype == torch.uint8
    for k, (h, w) in enumerate(batch.sizes):
        image = data[k].frame.image
        assert np.array_equal(batch.images[k, :, :h, :w].permute(1, 2, 0).numpy(), image)
        assert not batch.images[k, :, h:].any()
        assert not batch.images[k, :, :, w:].any()
        same_masks(batch.samples[k].truth, data[k].truth)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_samples_are_left_out_and_listed(root: Path, workers: int) -> None:
    images = root / "training" / "image_2"
    (images / "000001.png").unlink()
    (images / "000004.png").write_bytes(b"broken")
    (root / "training" / "velodyne" / "000006.bin").write_bytes(b"123")
    loader = Loader(open_dataset(root), 2, workers=workers, shuffle=False)
    assert _names(list(loader)) == ["000000", "000002", "000003", "000005"]
    assert sorted(Path(n).name for n in loader.broken) == [
        "000001.png",
        "000004.png",
        "000006.bin",
    ]


def test_the_order_is_drawn_anew_each_epoch_and_is_the_same_for_a_seed(root: Path) -> None:
    data = open_dataset(root)

    def epochs(seed: int) -> list[list[str]]:
        loader = Loader(data, 3, seed=seed)
        return [_names(list(loader)) for _ in range(2)]

    first = epochs(1)
    assert first[0] != first[1]
    assert sorted(first[0]) == sorted(first[1]) == [f"{k:06d}" for k in range(len(SIZES))]
    assert epochs(1) == first
    assert epochs(2) != first


def test_a_thousand_good_ones_outlive_broken_ones(rng: np.random.Generator) -> None:
    from amodal_core.errors import InputError

    good = sample(rng)

    class Many(list[Sample]):
        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            if index % 100 == 50:
                raise InputError("broken", f"frame {index}")
            return Sample(good.frame.__class__(0, image=good.frame.image), None, str(index))

        def __len__(self) -> int:
            return 1000

    loader = Loader(Many(), 16)
    assert len(_names(list(loader))) == 990
    assert len(loader.broken) == 10
