"""What the tests of the rivals LwF, RILOD, SID and ERD share: a scene, and one lesson in it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ciod_core.config.schema import Config, MethodConfig, ResamplerConfig
from ciod_core.methods.base import Method
from ciod_core.methods.erd import ErdConfig
from ciod_core.methods.lwf import LwfConfig
from ciod_core.methods.registry import build_method
from ciod_core.methods.rilod import RilodConfig
from ciod_core.methods.sid import SidConfig
from ciod_core.model.base import Losses, Targets
from ciod_core.model.knowledge import Knowledge
from ciod_core.model.yolox.predictions import YoloxPredictions
from tests.helpers.scenes import YOLOX, GroundTruth, make_targets, random_output, with_features

SIDE, NUM_OLD, NUM_ALL = 64, 3, 5
KEEP_ALL = 1.0
RIVALS = ("lwf", "rilod", "sid", "erd")


class Scene(NamedTuple):
    """Three images: two new objects, none, one."""

    student: YoloxPredictions
    teacher: YoloxPredictions
    targets: Targets


def build(name: str, ground_truth_iou: float = KEEP_ALL, **weights: float) -> Method:
    """A rival with every number spelled out."""
    numbers = {
        "lwf": LwfConfig(weight=1.0),
        "rilod": RilodConfig(class_weight=1.0, box_weight=1.0, feature_weight=1.0),
        "sid": SidConfig(class_weight=1.0, feature_weight=1.0, relation_weight=1.0),
        "erd": ErdConfig(num_std=2.0, nms_iou=0.005, class_weight=1.0, box_weight=1.0),
    }
    numbers[name] = numbers[name].model_copy(update=weights)
    resampler = ResamplerConfig(rule="fixed", fixed_score=0.15, nms_iou=0.65, ground_truth_iou=ground_truth_iou)
    return build_method(Config(method=MethodConfig(name=name), resampler=resampler, **numbers))


def make_scene(seed: int = 0, num_old: int = NUM_OLD, num_all: int = NUM_ALL) -> Scene:
    """Random answers with features."""
    listed: list[GroundTruth] = [
        (0, (4.0, 4.0, 30.0, 40.0), num_all - 2),
        (0, (30.0, 20.0, 60.0, 60.0), num_all - 1),
        (2, (10.0, 30.0, 50.0, 60.0), num_all - 1),
    ]
    student = with_features(random_output(3, num_all, SIDE, seed), SIDE, seed + 1)
    teacher = with_features(random_output(3, num_old, SIDE, seed + 100), SIDE, seed + 101)
    # Sure of few things, as a trained one is: otherwise nothing stands out.
    teacher.class_logits_BAC.sub_(3.0)
    return Scene(student, teacher, make_targets(listed))


def leaves(output: YoloxPredictions) -> dict[str, Tensor]:
    """The tensors of an output that can carry gradient, made to do so."""
    assert output.features is not None
    named = {
        "class": output.class_logits_BAC, "objectness": output.objectness_logits_BA, "boxes": output.boxes_BA4,
        "tower": output.features.class_features_BAF,
        **{f"neck {level}": level_map for level, level_map in enumerate(output.features.neck_maps)},
    }  # fmt: skip
    return {name: tensor.requires_grad_() for name, tensor in named.items()}


def knowledge_of(method: Method, teacher: YoloxPredictions, targets: Targets) -> Knowledge:
    """What a network teacher and the method make of the teacher's predictions."""
    return method.reconcile(replace(method.select(teacher), dense=teacher), targets)


def teach(method: Method, scene: Scene) -> Losses:
    """The losses of one training step."""
    knowledge = knowledge_of(method, scene.teacher, scene.targets)
    return method.losses(YOLOX, scene.student, scene.targets, knowledge)


def total(losses: Losses) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def distilled(losses: Losses) -> Tensor:
    """The sum of what the teacher has part in."""
    return total({name: loss for name, loss in losses.items() if name.startswith("old")})


def kept_places(method: Method, scene: Scene) -> list[tuple[int, int]]:
    knowledge = knowledge_of(method, scene.teacher, scene.targets)
    return list(zip(knowledge.image_K.tolist(), knowledge.anchor_K.tolist(), strict=True))
