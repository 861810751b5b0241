"""LwF: learning without forgetting (arXiv 1606.09282) for a detector; the simplest distillation there is."""

from __future__ import annotations

from pydantic import Field

from ciod_core.config.schema import NonNegative, Section
from ciod_core.distiller.responses import bernoulli_divergence
from ciod_core.methods.matching import MatchingMethod, OldObjects
from ciod_core.model.base import Losses, Predictions


class LwfConfig(Section):
    """LwF: class outputs at all anchor points."""

    weight: NonNegative = Field(1.0, description="λ: 1 weighs the teacher like the labels")


class Lwf(MatchingMethod):
    """At all anchor points the student matches the teacher's class outputs; boxes are left alone."""

    Config = LwfConfig
    section = "lwf"
    config: LwfConfig

    def match(self, student: Predictions, teacher: Predictions, old: OldObjects) -> Losses:
        """KL divergence of the old classes, summed over classes and anchor points, per positive.

        The labels' losses are sums per positive, too: λ = 1 means that teacher and labels weigh the same at every
        anchor point, whatever the size of the image.
        """
        ours_BAC = student.class_logits_BAC[..., : teacher.class_logits_BAC.shape[2]]
        divergence_BA = bernoulli_divergence(ours_BAC, teacher.class_logits_BAC).sum(dim=2)
        return {"old class": self.config.weight * (divergence_BA * old.trusted_BA).sum() / old.num_positives}
