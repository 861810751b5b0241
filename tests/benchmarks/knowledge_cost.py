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
from pathlib import Path

import torch

from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config
from ciod_core.data.loading.dataset import Batch, DetectionDataset
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.transforms import TrainTransform
from ciod_core.experiment.folder import Experiment
from ciod_core.methods.registry import build_method
from ciod_core.model.checkpoint import load_detector
from ciod_core.teachers.base import Teacher
from ciod_core.teachers.distill import distill
from ciod_core.teachers.network import NetworkTeacher, freeze
from ciod_core.teachers.resolve import bank_config
from ciod_core.teachers.sources import TeacherOptions
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
    banked = bank_config(config)
    with tempfile.TemporaryDirectory() as folder:
        options = TeacherOptions(arguments.teacher)
        bank = distill(experiment, banked, options, out=Path(folder) / "bank.safetensors").teacher
        image_size = arguments.image_size or bank.identity.image_size
        classes = experiment.read().classes.up_to(2)
        dataset = DetectionDataset(*bank.images, classes, TrainTransform(image_size, multi_scale=False))
        loader = iter(make_loader(dataset, arguments.batch_size, shuffle=True))
        batches = [next(loader) for _ in range(BATCHES)]
        weights = experiment.weights_path(arguments.teacher)
        frozen = freeze(load_detector(weights)[0], torch.device("cpu"), channels_last=True)
        live = NetworkTeacher(frozen, build_method(config), bank.identity, bank.images)
        num_new = len(experiment.read().classes.of_step(2))
        teachers: dict[str, Teacher | None] = {"plain": None, "bank": bank, "live": live}
        steps = {name: _step(weights, teacher, banked, batches, num_new) for name, teacher in teachers.items()}
        steps["forward"] = lambda index: _forward(live, batches[index])
        _measure(steps, arguments.batch_size, image_size)


def _measure(steps: dict[str, Callable[[int], int | None]], batch_size: int, image_size: int) -> None:
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
    print(f"batches of {batch_size}, {image_size} pixels, one thread")
    for name, taken in times.items():
        per_image = statistics.fmean(answers[name]) / batch_size
        cost = statistics.median(taken)
        print(f"{name:8} {cost:8.1f} ms  ×{cost / plain:.2f}  {per_image:6.1f} answers per image")


def _step(
    weights: Path, teacher: Teacher | None, config: Config, batches: list[Batch], num_new: int
) -> Callable[[int], int | None]:
    """One training step of a student that continues the teacher; returns the number of boxes it learned from."""
    student, method = load_detector(weights)[0], build_method(config)
    method.grow(student, num_new)
    trainer = Trainer(
        student=student,
        teacher=teacher,
        method=method,
        load_epoch=lambda epoch: _Batches(batches),
        config=config.training,
        device=torch.device("cpu"),
    )
    student.train()

    def step(index: int) -> int | None:
        _, kept, trunk_rate = trainer._learn_from(batches[index], share=1.0)
        trainer._update(1e-4, trunk_rate, 1000)
        return kept

    return step


@torch.no_grad()
def _forward(teacher: NetworkTeacher, batch: Batch) -> None:
    teacher.detector(batch.images_B3HW.to(memory_format=torch.channels_last))


class _Batches(list[Batch]):
    """Batches that stand in for a loader."""


if __name__ == "__main__":
    main()
