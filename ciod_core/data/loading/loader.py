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
        smallest_batch: images of the smallest batch that any process gets.
        last_is_whole: every process gets all images of the last batch, which are fewer than there are processes.
    """

    def __init__(
        self,
        loader: DataLoader[Sample | CiodError],
        batches: Sequence[Sequence[int]],
        smallest_batch: int,
        last_is_whole: bool,
    ) -> None:
        self._loader = loader
        self._num_batches = len(batches)
        self.smallest_batch = smallest_batch
        self.last_is_whole = last_is_whole

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
    """Batches of one epoch, or what one of several processes gets of them.

    Processes that train share every batch, so that they see together what a single one would, batch by batch; those
    that look at all images once, in the order of the table, take turns: every batch is the one of a single process.

    Args:
        dataset: the images; its epoch is set to `epoch`.
        batch_size: images per batch of all processes.
        shuffle: draw the order from the seed and the epoch, to train; otherwise the order of the table.
        seed: seed of the order.
        epoch: the epoch, from 0.
        workers: loading processes; 0 loads in this one.
        rank: number of this process.
        world_size: number of processes.
        beside_I: see `batch_indices`.
    """
    dataset.set_epoch(epoch)
    whole = batch_indices(len(dataset), batch_size, order_seed=(seed, epoch) if shuffle else None, beside_I=beside_I)
    batches = [_share(batch, rank, world_size) for batch in whole] if shuffle else whole[rank::world_size]
    if workers:
        release_freed_memory()
    loader: DataLoader[Sample | CiodError] = DataLoader(
        _ErrorsAsValues(dataset),
        batch_sampler=batches,
        num_workers=min(workers, len(batches)),
        collate_fn=_collate_or_error,
        pin_memory=torch.cuda.is_available(),
    )
    smallest = min((len(_share(batch, world_size - 1, world_size)) for batch in whole), default=0)
    return BatchLoader(
        loader, batches, smallest, last_is_whole=shuffle and any(len(batch) < world_size for batch in whole)
    )


def batch_indices(
    num_images: int,
    batch_size: int,
    *,
    order_seed: tuple[int, int] | None,
    beside_I: BoolArray | None = None,
) -> list[list[int]]:
    """The image indices of every batch.

    Args:
        num_images: all images.
        batch_size: images per batch.
        order_seed: of the order; None: the order of the table.
        beside_I: mask of the images that fill half of every batch, over and over, beside one pass over the others;
            None: one pass over all images.
    """
    order = np.arange(num_images)
    if order_seed is not None:
        order = np.random.default_rng(order_seed).permutation(num_images)
    if beside_I is None:
        return _cut(order, batch_size)
    beside, rest = order[beside_I[order]], order[~beside_I[order]]
    half = batch_size // 2
    batches = _cut(rest, batch_size - half)
    added = _cut(np.resize(beside, len(batches) * half), half)
    return [batch + more for batch, more in zip(batches, added, strict=True)]


def _share(batch: list[int], rank: int, world_size: int) -> list[int]:
    """What one of several processes trains on; of fewer images than processes, each trains on all."""
    return batch[rank::world_size] if len(batch) >= world_size else batch


def _cut(order: Int64Array, size: int) -> list[list[int]]:
    return [order[start : start + size].tolist() for start in range(0, len(order), size)]


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
