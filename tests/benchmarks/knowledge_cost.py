"""What a training step costs without a teacher, with a bank, and with a live teacher, on the same batches in one run.

    ciod demo --out DEMO
    python -m tests.benchmarks.knowledge_cost DEMO [--image-size 320]

At a size that it was not trained at, a teacher may see hundreds of things that are not there, and assigning anchor
points to them costs; so the number of answers is printed too.

Loading is left out: batches are made before the clock starts. Rounds over all three, so that a machine that slows down
slows all alike; the median of each, and its ratio to plain training. `forward` is the teacher's pass alone: a live
teacher cannot cost less than that.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config
from ciod_core.data.loading.dataset import Batch, DetectionDataset
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.transforms import TrainTransform
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.step_data import read_step
from ciod_core.methods import build_method
from ciod_core.model.checkpoint import load_detector
from ciod_core.teachers.asking import Asking
from ciod_core.teachers.distil import distil
from ciod_core.teachers.use import BankMemory, from_bank
from ciod_core.training.progress import SilentListener
from ciod_core.training.trainer import Trainer

BATCHES, ROUNDS = 4, 8


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="an experiment whose step 1 is trained")
    parser.add_argument("--teacher", default="step1")
    parser.add_argument("--image-size", type=int, help="default: the teacher's")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    experiment = Experiment.open(arguments.experiment)
    config = resolve_config(flags={"training.batch_size": arguments.batch_size, "data.workers": 0})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.safetensors"
        bank = distil(experiment, from_bank(config), Asking(arguments.teacher), out=path).bank
        image_size = arguments.image_size or bank.info.image_size
        table, images = read_step(experiment, experiment.read(), 2)
        dataset = DetectionDataset(
            table,
            images,
            experiment.read().classes.up_to(2),
            TrainTransform(image_size, multi_scale=False),
            memory=BankMemory.of(bank, table, images),
        )
        loader = iter(make_loader(dataset, arguments.batch_size, shuffle=True))
        known = [next(loader) for _ in range(BATCHES)]
    unknown = [batch._replace(knowledge=None) for batch in known]
    weights = experiment.weights_path(arguments.teacher)
    num_new = len(experiment.read().classes.of_step(2))
    settings = {"plain": ("finetune", config), "bank": ("crs-ckd", from_bank(config)), "live": ("crs-ckd", config)}
    steps: dict[str, Callable[[int], int | None]] = {
        name: _step(name, weights, method, chosen, known if name == "bank" else unknown, num_new)
        for name, (method, chosen) in settings.items()
    }
    asking = _trainer("live", weights, "crs-ckd", config, unknown, num_new)
    steps["forward"] = lambda index: _ask(asking, unknown[index])
    times: dict[str, list[float]] = {name: [] for name in steps}
    answers: dict[str, list[int]] = {name: [] for name in steps}
    for round_number in range(ROUNDS + 1):
        for index in range(BATCHES):
            for name, step in steps.items():
                started = time.perf_counter()
                kept = step(index)
                if round_number:
                    times[name].append(1000 * (time.perf_counter() - started))
                    answers[name].append(kept or 0)
    plain = statistics.median(times["plain"])
    print(f"batches of {arguments.batch_size}, {image_size} pixels, one thread")
    for name, taken in times.items():
        per_image = statistics.fmean(answers[name]) / arguments.batch_size
        cost = statistics.median(taken)
        print(f"{name:8} {cost:8.1f} ms  ×{cost / plain:.2f}  {per_image:6.1f} answers per image")


def _step(
    name: str, weights: Path, method: str, config: Config, batches: list[Batch], num_new: int
) -> Callable[[int], int | None]:
    """One training step of a student that continues the teacher; says how many answers it learned from."""
    trainer = _trainer(name, weights, method, config, batches, num_new)
    return lambda index: trainer._train_batch(batches[index], 1e-4, 1000)[1]


def _ask(trainer: Trainer, batch: Batch) -> None:
    trainer._ask_teacher(batch.images_B3HW.to(memory_format=trainer.memory_format))


def _trainer(name: str, weights: Path, method: str, config: Config, batches: list[Batch], num_new: int) -> Trainer:
    student, _ = load_detector(weights)
    built = build_method(config.model_copy(update={"method": config.method.model_copy(update={"name": method})}))
    if name == "plain":
        # The same student in every row: what batch normalisation does is not what is measured.
        built = replace(built, grow=build_method(config).grow)
    built.grow(student, num_new)
    teacher = load_detector(weights)[0] if name == "live" else None
    trainer = Trainer(
        student, teacher, built, lambda epoch: _Batches(batches), config.training, torch.device("cpu"), SilentListener()
    )
    student.train()
    return trainer


class _Batches(list[Batch]):
    """Batches that stand in for a loader."""


if __name__ == "__main__":
    main()
