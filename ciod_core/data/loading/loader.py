"""Batches in a reproducible order; errors meant for users come out of loading workers unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ciod_core.arrays import BoolArray, Int64Array
from ciod_core.data.loading.dataset import Batch, DetectionDataset, Sample, collate
from ciod_core.errors import CiodError
from ciod_core.runtime.memory import release_freed_memory


class BatchLoader:
    """An iterable of batches of known length; iterating again repeats the same batches.

    Attributes:
        smallest_batch: images of the smallest batch.
    """

    def __init__(self, loader: DataLoader[Sample | CiodError], batches: Sequence[Sequence[int]]) -> None:
        self._loader = loader
        self._num_batches = len(batches)
        self.smallest_batch = min(map(len, batches), default=0)

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches.

        Raises:
            CiodError: an image could not be loaded, or a loading worker died.
        """
        iterator = iter(self._loader)
        while True:
            try:
                item = next(iterator)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                reason = str(error).splitlines()[0]
                raise CiodError(f"data loading: {reason}; lower data.workers or training.batch_size") from None
            if isinstance(item, CiodError):
                raise item
            yield item


def make_loader(
    dataset: DetectionDataset,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int = 0,
    epoch: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    beside_I: BoolArray | None = None,
) -> BatchLoader:
    """Batches of one epoch.

    Args:
        dataset: the images; its epoch is set to `epoch`.
        batch_size: images per batch and process.
        shuffle: draw the order from the seed and the epoch; otherwise the order of the table.
        seed: seed of the order.
        epoch: the epoch, from 0.
        workers: loading processes; 0 loads in this one.
        rank: number of this process.
        world_size: number of processes; all of them get equally many batches.
        beside_I: see `batch_indices`.
    """
    dataset.set_epoch(epoch)
    batches = batch_indices(
        len(dataset),
        batch_size,
        order_seed=(seed, epoch) if shuffle else None,
        rank=rank,
        world_size=world_size,
        beside_I=beside_I,
    )
    if workers:
        release_freed_memory()
    loader: DataLoader[Sample | CiodError] = DataLoader(
        _ErrorsAsValues(dataset),
        batch_sampler=batches,
        num_workers=min(workers, len(batches)),
        collate_fn=_collate_or_error,
        pin_memory=torch.cuda.is_available(),
    )
    return BatchLoader(loader, batches)


def batch_indices(
    num_images: int,
    batch_size: int,
    *,
    order_seed: tuple[int, int] | None,
    rank: int = 0,
    world_size: int = 1,
    beside_I: BoolArray | None = None,
) -> list[list[int]]:
    """The image indices of every batch of one process.

    Where the images do not divide evenly among processes, the first ones of the order are used twice.

    Args:
        num_images: all images.
        batch_size: images per batch.
        order_seed: of the order; None: the order of the table.
        rank: number of this process.
        world_size: number of processes.
        beside_I: mask of the images that fill half of every batch, over and over, beside one pass over the others;
            None: one pass over all images.
    """
    order = np.arange(num_images)
    if order_seed is not None:
        order = np.random.default_rng(order_seed).permutation(num_images)
    if beside_I is None:
        return _cut(_share(order, rank, world_size), batch_size)
    beside, rest = order[beside_I[order]], order[~beside_I[order]]
    half = batch_size // 2
    batches = _cut(_share(rest, rank, world_size), batch_size - half)
    added = _cut(_share(np.resize(beside, len(batches) * half * world_size), rank, world_size), half)
    return [batch + more for batch, more in zip(batches, added, strict=True)]


def _share(order: Int64Array, rank: int, world_size: int) -> list[int]:
    """What one of several processes gets of an order."""
    own: list[int] = np.resize(order, -(-len(order) // world_size) * world_size)[rank::world_size].tolist()
    return own


def _cut(order: list[int], size: int) -> list[list[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


class _ErrorsAsValues(Dataset[Sample | CiodError]):
    """Hands errors meant for users back as values, since a DataLoader would wrap them into a traceback text."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> Sample | CiodError:
        try:
            return self._dataset[index]
        except CiodError as error:
            return error

    def __len__(self) -> int:
        return len(self._dataset)


def _collate_or_error(samples: Sequence[Sample | CiodError]) -> Batch | CiodError:
    loaded: list[Sample] = []
    for sample in samples:
        if isinstance(sample, CiodError):
            return sample
        loaded.append(sample)
    return collate(loaded)
