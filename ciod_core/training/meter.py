"""Running means between two progress records, without forcing the device to wait for the host.

Several processes record together: losses and counts are those of all, times those of the process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from ciod_core.runtime.distributed import mean_across_processes, world_size
from ciod_core.training.progress import TrainingRecord

Item = TypeVar("Item")


class IntervalMeter:
    """Sums losses on the device and times the host; `record` reads both and starts the next interval."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._started = time.perf_counter()
        self._waited = 0.0
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._images = 0
        self._kept: int | None = None

    def waiting_for(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Pass batches on, counting the time until each arrives as waiting."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            item = next(iterator, None)
            self._waited += time.perf_counter() - asked
            if item is None:
                return
            yield item

    def add(self, losses: dict[str, Tensor], kept: int | None, images: int) -> None:
        """Take in one iteration."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
        self._count += 1
        self._images += images
        if kept is not None:
            self._kept = (self._kept or 0) + kept

    def record(self, *, epoch: int, iteration: int, iterations: int, lr: float) -> TrainingRecord:
        """The means of the interval, which ends here."""
        processes = world_size()
        losses = {name: float(mean_across_processes(total)) / self._count for name, total in self._sums.items()}
        counts = mean_across_processes(torch.tensor([self._images, self._kept or 0], dtype=torch.float64)) * processes
        images, kept = counts.tolist()
        seconds = max(time.perf_counter() - self._started, 1e-9)
        record = TrainingRecord(
            epoch=epoch,
            iteration=iteration,
            iterations=iterations,
            losses=losses,
            lr=lr,
            images_per_second=images / seconds,
            eta_seconds=(iterations - iteration) * seconds / self._count,
            data_wait_share=min(self._waited / seconds, 1.0),
            kept_per_image=None if self._kept is None else kept / images,
        )
        self._reset()
        return record
