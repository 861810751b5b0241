"""The method that `auto` chooses for a step, by what its teacher sees of old objects in the new images.

Distillation holds old classes by their objects in the new images. Where there are hardly any, nothing holds them, and a
branch beside the frozen detector forgets nothing; where there are many, one network learns both better.

Legend: C old classes, G labeled objects of an image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.methods.registry import BRANCH, DISTILLATION, build_method
from ciod_core.model.base import Targets
from ciod_core.model.checkpoint import load_detector
from ciod_core.runs.spec import RunSpec
from ciod_core.runtime.determinism import reproducible
from ciod_core.teachers.base import TeacherIdentity
from ciod_core.teachers.network import NetworkTeacher, freeze

# Old objects per new one from which distillation holds the old classes, and the share of these classes that must have
# their part of them: many objects of one class hold no other.
ENOUGH_OLD_OBJECTS = 0.5
ENOUGH_OLD_CLASSES = 0.5
# Images that are looked at, spread evenly over the step's.
IMAGES_TO_LOOK_AT = 100


def choose_method(spec: RunSpec, images: LocatedTable, device: torch.device, *, from_bank: bool = False) -> RunSpec:
    """The run with the method that suits it and the reason.

    Args:
        spec: a run with a teacher and the method `auto`.
        images: the images and boxes to train on, replayed ones included.
        device: where the teacher runs.
        from_bank: the run learns from a bank that was passed.

    Raises:
        DataError: an image that cannot be read.
    """
    if from_bank:
        return _chosen(spec, DISTILLATION, "a knowledge bank was passed")
    if not spec.num_new:
        return _chosen(spec, DISTILLATION, "the step has no new class")
    old_C, new, looked_at = _count_objects(spec, images, device)
    per_new = float(old_C.sum()) / max(new, 1)
    num_seen = int((old_C >= ENOUGH_OLD_OBJECTS * new / len(old_C)).sum())
    seen = f"{per_new:.2f} old objects per new one in {looked_at} images, "
    seen += f"enough for {num_seen} of {len(old_C)} old classes"
    if per_new >= ENOUGH_OLD_OBJECTS and num_seen >= ENOUGH_OLD_CLASSES * len(old_C):
        return _chosen(spec, DISTILLATION, f"the teacher sees {seen}")
    return _chosen(spec, BRANCH, f"the teacher sees {seen}; too few to hold them")


def _chosen(spec: RunSpec, method: str, reason: str) -> RunSpec:
    config = spec.config.model_copy(update={"method": spec.config.method.model_copy(update={"name": method})})
    return replace(spec, config=config, choice=f"method {method}: {reason}")


def _count_objects(spec: RunSpec, images: LocatedTable, device: torch.device) -> tuple[Tensor, int, int]:
    """(C,) objects of each old class, new objects, and the number of images that were looked at.

    A selected box of the teacher counts as much of an object as its score, and not at all where it overlaps a label; a
    label of an old class counts as one.
    """
    assert spec.teacher is not None
    table, num_old = images.table, len(spec.classes) - spec.num_new
    labels_N = spec.classes.labels_of(table.category_ids_N)
    chosen = np.unique(np.linspace(0, table.num_images - 1, IMAGES_TO_LOOK_AT).round().astype(np.int64))
    old_C, new = torch.zeros(num_old), 0
    with reproducible(spec.config.training.seed, strict=False):
        method = build_method(spec.config)
        detector, info = load_detector(spec.teacher.path)
        identity = TeacherIdentity(
            teacher_sha256=spec.teacher.sha256,
            classes=info.classes.names,
            **spec.config.data.sizes,
            resampler=method.resampler,
        )
        teacher = NetworkTeacher(freeze(detector, device, channels_last=False), method, identity, images)
        for index, knowledge in zip(chosen.tolist(), teacher.annotate(chosen.tolist()), strict=True):
            rows = table.rows_of(index)
            known_G = (labels_N[rows] >= 0) & ~table.crowd_N[rows]
            labels_G = torch.from_numpy(labels_N[rows][known_G])
            boxes_G4 = torch.from_numpy(table.boxes_N4[rows][known_G])
            objects = Targets(boxes_G4, labels_G, torch.zeros_like(labels_G))
            kept = method.reconcile(knowledge, objects)
            old_C.index_add_(0, kept.labels_K, kept.scores_K)
            old_C += torch.bincount(labels_G[labels_G < num_old], minlength=num_old)
            new += int((labels_G >= num_old).sum())
    return old_C, new, len(chosen)
