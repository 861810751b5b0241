"""What a run would take, measured on its first batches; nothing is written and nothing is kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from ciod_core.config.schema import Config
from ciod_core.data.loading.dataset import Batch
from ciod_core.data.loading.loader import BatchLoader
from ciod_core.experiment.folder import Experiment
from ciod_core.model.common.cost import num_parameters
from ciod_core.runs.execute import build_trainer
from ciod_core.runs.spec import plan_run
from ciod_core.runs.train import prepared_run
from ciod_core.runtime.distributed import world_size
from ciod_core.runtime.group import Everywhere
from ciod_core.training.trainer import Trainer

# The first iteration allocates memory, chooses algorithms, and compiles.
WARMUP = 1
# Measured iterations: as many as fit into the time, but so many at least.
MOST_ITERATIONS, LEAST_ITERATIONS = 10, 2
SECONDS_OF_MEASUREMENT = 60.0
# Of a GPU's memory, for training: the next images may show more objects, and allocators leave gaps.
SHARE_OF_MEMORY = 0.9


class Estimate(NamedTuple):
    """The cost of a run.

    Attributes:
        run: its name.
        method: that teaches it, as `auto` chose it.
        parameters: of the student.
        images: it trains on.
        batch_size: images per iteration, of all processes.
        epochs: passes over the images.
        iterations: of all epochs.
        seconds_per_iteration: median of the measured ones, loading included; without evaluation at the end.
        loading_share: share of the measured time, 0..1, in which nothing was computed for want of images.
        memory_bytes: the most that was in use: of the GPU, or of this process; None where nobody counts it.
        device: where it was measured.
        notes: what was decided about the run, what a branch costs, the largest batch that fits on a GPU, and how long
            compiling took.
    """

    run: str
    method: str
    parameters: int
    images: int
    batch_size: int
    epochs: int
    iterations: int
    seconds_per_iteration: float
    loading_share: float
    memory_bytes: int | None
    device: str
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of the whole training."""
        return self.iterations * self.seconds_per_iteration

    @property
    def images_per_second(self) -> float:
        """While training."""
        return self.batch_size / self.seconds_per_iteration


def estimate_run(
    experiment: Experiment,
    config: Config,
    *,
    teacher: Path | str | None = None,
    step: int | None = None,
    run: str | None = None,
    knowledge: Path | str | None = None,
) -> Estimate:
    """Train the first batches of a run and forget them; see `train_step` for the arguments and errors."""
    spec = plan_run(experiment, config, teacher=teacher, step=step, run=run)
    with prepared_run(experiment, spec, knowledge) as prepared:
        with Everywhere(prepared.device, build_trainer, prepared) as trainers:
            iterations, settings = trainers.mine.iterations, prepared.spec.config
            first, *timed = trainers.call(_measure)[0]
            room = _room_for(settings.training.batch_size, prepared.device)
        typical = median(each.seconds for each in timed)
        notes = [] if room is None else [f"the memory has room for batches of about {room:,} images"]
        if settings.training.compile:
            notes.append(f"compiling took {first.seconds - typical:.0f} s; every further size of a batch takes as long")
        return Estimate(
            run=prepared.spec.name,
            method=settings.method.name,
            parameters=num_parameters(prepared.student),
            images=prepared.data.table.num_images,
            batch_size=settings.training.batch_size,
            epochs=settings.training.epochs,
            iterations=iterations,
            seconds_per_iteration=typical,
            loading_share=sum(each.waiting for each in timed) / sum(each.seconds for each in timed),
            memory_bytes=_most_memory(prepared.device),
            device=str(prepared.device),
            notes=(*prepared.notes, *notes),
        )


class _Iteration(NamedTuple):
    """Seconds of an iteration, and those of them in which it waited for its images."""

    seconds: float
    waiting: float


def _measure(trainer: Trainer) -> list[_Iteration]:
    """The first iterations of a trainer, the warm-up first; the trainer is of no use afterwards."""
    if trainer.device.type == "cuda":
        # What was freed before, like the look that chooses a method, is not the run's.
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(trainer.device)
    timed = _TimedBatches(trainer.load_epoch(0), trainer.device)
    trainer.load_epoch = lambda epoch: timed
    trainer.iterations_per_epoch = len(timed)
    trainer.train_epoch()
    return timed.iterations


class _TimedBatches(BatchLoader):
    """The first batches of a loader, over and over if there are fewer, and how long each took until the next."""

    def __init__(self, loader: BatchLoader, device: torch.device) -> None:
        self._first = loader
        self._device = device
        self.smallest_batch = loader.smallest_batch
        self.last_is_whole = False
        self.iterations: list[_Iteration] = []

    def __len__(self) -> int:
        return WARMUP + MOST_ITERATIONS

    def __iter__(self) -> Iterator[Batch]:
        begun = time.perf_counter()
        while True:
            for batch in self._first:
                arrived = time.perf_counter()
                yield batch
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
                now = time.perf_counter()
                self.iterations.append(_Iteration(now - begun, arrived - begun))
                begun, done = now, len(self.iterations) - WARMUP
                # Several processes have to end after the same one.
                measured = sum(each.seconds for each in self.iterations[WARMUP:])
                is_long = world_size() == 1 and measured > SECONDS_OF_MEASUREMENT
                if done == MOST_ITERATIONS or (done >= LEAST_ITERATIONS and is_long):
                    return


def _room_for(batch_size: int, device: torch.device) -> int | None:
    """Images in the largest batch that a GPU can train on, after some were trained; None where nobody counts memory.

    What an image takes is what is in use at most, less what stays: weights, their gradients, the optimizer's state.
    """
    if device.type != "cuda":
        return None
    stays, most = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    of_an_image = (most - stays) / batch_size
    return int((SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[1] - stays) / of_an_image)


def _most_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux kibibytes.
    return most if sys.platform == "darwin" else most * 1024
