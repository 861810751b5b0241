"""How the cost of a training step grows with the number of classes, part by part; class convolutions left aside.

    python -m tests.benchmarks.class_scaling

One batch, the same boxes, objectness and objects for every number of classes; the logits of further classes are as low
as those of classes that an image does not show. The teacher knows half of the objects, labels the other half. Median
time of each part on the CPU, and its ratio to 10 classes; loss and transfer forward and backward.

Beside the parts of the step: loss and transfer over all positives, as where everything is labeled, or nothing; and
`rows`, the class logits at the positives and their gradient, which is as large as all class logits together. That
belongs to the class convolution.

Legend: B images, A anchor points, C classes, N objects of the batch, P positives.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ciod_core.config.schema import ResamplerConfig
from ciod_core.distiller.ckd import collaborative_distillation
from ciod_core.methods.crs_ckd import CrsCkd, DistillerConfig
from ciod_core.model.base import Assignment, Targets, rows_at
from ciod_core.model.knowledge import Knowledge
from ciod_core.model.yolox.predictions import YoloxPredictions
from tests.helpers.networks import lively_detector
from tests.helpers.scenes import anchors

NUM_CLASSES = (10, 80, 300, 1000)
NUM_IMAGES, SIDE = 4, 640
OBJECTS_PER_IMAGE = 8
Part = Callable[[], Any]

# What a part may reach at the most classes.
TARGET_RATIO = 1.5

# What makes up the step; the other parts stand beside it.
STEP = ("selection", "assignment", "loss", "transfer")


def make_output(num_classes: int, targets: Targets, seed: int) -> YoloxPredictions:
    """Predictions like those of a trained detector: it sees the objects, in one of ten classes, and little else."""
    points_A2, strides_A = anchors(SIDE, SIDE)
    generator = torch.Generator().manual_seed(seed)
    shape = (NUM_IMAGES, len(points_A2))

    def normal(*more: int) -> Tensor:
        return torch.randn((*shape, *more), generator=generator)

    centers_BA2 = points_A2 + normal(2) * strides_A.unsqueeze(1)
    halves_BA2 = (0.3 * normal(2)).exp() * strides_A.unsqueeze(1) * 2
    boxes_BA4, objectness_logits_BA = (
        torch.cat((centers_BA2 - halves_BA2, centers_BA2 + halves_BA2), dim=2),
        normal() - 5,
    )
    first_ten = normal(10) - 6
    for box_4, label, image in zip(targets.boxes_N4, targets.labels_N.tolist(), targets.image_N.tolist(), strict=True):
        center_2, size = (box_4[:2] + box_4[2:]) / 2, float((box_4[2:] - box_4[:2]).max())
        seen = ((points_A2 - center_2).abs() < 1.5 * strides_A.unsqueeze(1)).all(dim=1) & (strides_A * 4 < size)
        boxes_BA4[image, seen] = box_4 + normal(4)[image, seen] * 2
        objectness_logits_BA[image, seen] += 6
        first_ten[image, seen, label % 10] += 7
    # Drawn after everything else, so that the first ten classes are the same for any number of classes.
    others = torch.randn((*shape, num_classes - 10), generator=generator) - 9
    return YoloxPredictions(
        boxes_BA4=boxes_BA4,
        class_logits_BAC=torch.cat((first_ten, others), dim=2),
        objectness_logits_BA=objectness_logits_BA,
        points_A2=points_A2,
        strides_A=strides_A,
    )


def make_objects(seed: int) -> Targets:
    """Objects of all sizes, in ten classes."""
    generator = torch.Generator().manual_seed(seed)
    count = NUM_IMAGES * OBJECTS_PER_IMAGE
    sizes_N2 = torch.exp(torch.rand(count, 2, generator=generator) * 3.2 + 2.5)
    corners_N2 = torch.rand(count, 2, generator=generator) * (SIDE - sizes_N2)
    return Targets(
        boxes_N4=torch.cat((corners_N2, corners_N2 + sizes_N2), dim=1),
        labels_N=torch.arange(count) % 10,
        image_N=torch.arange(NUM_IMAGES).repeat_interleave(OBJECTS_PER_IMAGE),
    )


class PositivesAlone(YoloxPredictions):
    """Predictions whose gradient of the class logits ends at the positives: the rest belongs to the convolution."""

    def class_logits_at(self, image_P: Tensor, anchor_P: Tensor) -> Tensor:
        return super().class_logits_at(image_P, anchor_P).detach().requires_grad_()


def parts_of_a_step(num_classes: int) -> dict[str, Part]:
    """The parts as functions to time: the teacher knows half of the objects, labels the other half."""
    objects = make_objects(seed=0)
    targets = Targets(*(field[1::2] for field in objects))
    teacher, student = make_output(num_classes, objects, seed=1), make_output(num_classes, objects, seed=2)
    # Losses and assignment do not depend on the weights.
    detector, method = lively_detector(), CrsCkd(DistillerConfig(), ResamplerConfig())

    def select() -> Knowledge:
        return method.reconcile(method.select(teacher), targets)

    knowledge = select()
    assert len(knowledge) > NUM_IMAGES
    merged = knowledge.before(targets)
    assignment = detector.assign(student, merged)
    student = PositivesAlone(**vars(student))
    for leaf in (student.class_logits_BAC, student.objectness_logits_BA, student.boxes_BA4):
        leaf.requires_grad_()
    old_P = assignment.object_P < len(knowledge)
    every_P = torch.ones_like(old_P)
    gradient_PC = torch.ones(len(old_P), num_classes)

    def rows() -> None:
        read_PC = rows_at(student.class_logits_BAC, assignment.image_P, assignment.anchor_P)
        torch.autograd.grad(read_PC, student.class_logits_BAC, gradient_PC)

    def supervision(chosen_P: Tensor) -> None:
        losses = detector.losses(student, merged, assignment, chosen_P=chosen_P)
        torch.stack(list(losses.values())).sum().backward()

    return {
        "selection": select,
        "assignment": lambda: detector.assign(student, merged),
        "loss": lambda: supervision(~old_P),
        "transfer": lambda: transfer(student, assignment, knowledge, old_P),
        "loss, all": lambda: supervision(every_P),
        "transfer, all": lambda: transfer(student, assignment, knowledge, every_P),
        "rows": rows,
    }


def transfer(student: YoloxPredictions, assignment: Assignment, knowledge: Knowledge, chosen_P: Tensor) -> None:
    """CKD and its gradients, where these positives are those of the teacher's boxes."""
    image_P, anchor_P, object_P, _ = (field[chosen_P] for field in assignment)
    losses = collaborative_distillation(
        student.class_logits_at(image_P, anchor_P),
        student.boxes_BA4[image_P, anchor_P],
        knowledge.class_logits_KC,
        knowledge.boxes_K4,
        object_P % len(knowledge),
        weighting=DistillerConfig().weighting,
        target=DistillerConfig().target,
    )
    (losses.class_sum + losses.location_sum).backward()


def median_milliseconds(steps: dict[int, dict[str, Part]], repeats: int) -> dict[int, dict[str, float]]:
    """Median wall time of every part; in rounds over all of them, so that a machine that slows down slows all alike."""
    times: dict[int, dict[str, list[float]]] = {number: {name: [] for name in parts} for number, parts in steps.items()}
    for _ in range(repeats + 1):
        for number, parts in steps.items():
            for name, part in parts.items():
                part()  # so that what ran before leaves every part the same caches: its own
                started = time.perf_counter()
                part()
                times[number][name].append(1000 * (time.perf_counter() - started))
    # The first round warms up.
    return {
        number: {name: statistics.median(taken[1:]) for name, taken in parts.items()} for number, parts in times.items()
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    times = median_milliseconds({number: parts_of_a_step(number) for number in NUM_CLASSES}, repeats)
    for parts in times.values():
        parts["together"] = sum(parts[name] for name in STEP)
    print(f"{'part':14}" + "".join(f"{f'C = {number}':>18}" for number in NUM_CLASSES))
    for name, base in times[NUM_CLASSES[0]].items():
        cells = [f"{times[number][name]:.2f} ms ×{times[number][name] / base:.2f}" for number in NUM_CLASSES]
        over = name != "rows" and times[NUM_CLASSES[-1]][name] > TARGET_RATIO * base
        print(f"{name:14}" + "".join(f"{cell:>18}" for cell in cells) + f"   over ×{TARGET_RATIO}" * over)


if __name__ == "__main__":
    main()
