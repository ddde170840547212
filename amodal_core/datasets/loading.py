"""Serve samples to training through a torch DataLoader; broken ones never stop a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from amodal_core.errors import InputError
from amodal_core.frame import Sample


@dataclass(eq=False)
class Batch:
    """Samples of one step.

    Attributes:
        images: (B, 3, H, W) uint8, zeros right of and below images smaller than the largest.
        sizes: (height, width) of each image.
        samples: the samples, their images removed: truth stays RLE until a loss asks for pixels.
        broken: samples that could not be read, by name and reason.
    """

    images: torch.Tensor
    sizes: list[tuple[int, int]]
    samples: list[Sample]
    broken: list[tuple[str, str]] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """The same with images in page-locked memory, as DataLoader asks for."""
        return Batch(self.images.pin_memory(), self.sizes, self.samples, self.broken)


class _Tolerant(TorchDataset[Sample | tuple[str, str]]):
    """A data set whose broken samples are told instead of raised."""

    def __init__(self, data: Sequence[Sample]) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Sample | tuple[str, str]:
        try:
            return self._data[index]
        except InputError as error:
            return error.where or f"sample {index}", error.what


def collate(items: Sequence[Sample | tuple[str, str]]) -> Batch:
    """Samples to a Batch; pairs of name and reason are those that could not be read."""
    samples = [i for i in items if isinstance(i, Sample) and i.frame.image is not None]
    broken = [i for i in items if not isinstance(i, Sample)]
    sizes = [s.frame.size for s in samples]
    height = max((h for h, _ in sizes), default=0)
    width = max((w for _, w in sizes), default=0)
    images = torch.zeros((len(samples), 3, height, width), dtype=torch.uint8)
    for k, sample in enumerate(samples):
        assert sample.frame.image is not None
        h, w = sizes[k]
        # Copied into its place at once: a transposed copy first would cost as much again.
        target = images[k].numpy()
        np.copyto(target[:, :h, :w], sample.frame.image.transpose(2, 0, 1))
        sample.frame.image = None
    return Batch(images, sizes, samples, broken)


class Loader:
    """Batches of a data set, shuffled by a seed, read by worker processes.

    Iterating gives the batches of one epoch; samples that cannot be read are left out of them and
    listed in `broken` at the end.

    Args:
        data: any data set.
        batch_size: samples a batch; a batch with broken ones is smaller.
        workers: processes that read; 0 reads in this one.
        shuffle: whether to draw a new order every epoch.
        seed: of the order.
        pin: whether to put images into page-locked memory, for copies to a GPU.

    Attributes:
        broken: reason by name of every sample that could not be read so far.
    """

    def __init__(
        self,
        data: Sequence[Sample],
        batch_size: int,
        *,
        workers: int = 0,
        shuffle: bool = True,
        seed: int = 0,
        pin: bool = False,
    ) -> None:
        self.broken: dict[str, str] = {}
        self._generator = torch.Generator().manual_seed(seed)
        self._loader = DataLoader(
            _Tolerant(data),
            batch_size=batch_size,
            shuffle=shuffle,
            num_workers=workers,
            collate_fn=collate,
            generator=self._generator,
            pin_memory=pin,
            persistent_workers=workers > 0,
            worker_init_fn=_one_thread,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            self.broken.update(batch.broken)
            if batch.samples:
                yield batch


def _one_thread(_: int) -> None:
    """Workers run beside each other; threads of OpenCV and torch in each would only wait."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
