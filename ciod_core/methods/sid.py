"""SID: selective and inter-related distillation (Peng et al., CVIU 2021) for anchor-free detectors.

Selective: what classifies objects is distilled, what locates them is not. Inter-related: relations between instances
are distilled, too.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ciod_core.config.schema import NonNegative, ResamplerConfig, Section
from ciod_core.distiller.features import features_of, relation_loss, tower_loss
from ciod_core.distiller.responses import squared_error
from ciod_core.methods.base import Method, supervised
from ciod_core.model.base import Detector, Losses, Predictions, Targets
from ciod_core.model.knowledge import Knowledge


class SidConfig(Section):
    """SID: logits and relations of the instances that the resampler selects, and the class tower's features."""

    class_weight: NonNegative = Field(1.0, description="of the loss of class outputs")
    feature_weight: NonNegative = Field(1.0, description="of the loss of features")
    relation_weight: NonNegative = Field(1.0, description="of the loss of relations between instances")


class Sid(Method):
    """Responses and relations of the selected instances; features of the class tower everywhere."""

    Config = SidConfig
    section = "sid"
    needs = frozenset({"selected", "dense", "features"})

    def __init__(self, config: SidConfig, resampler: ResamplerConfig) -> None:
        super().__init__(config, resampler)
        self.config = config

    def losses(
        self,
        detector: Detector,
        student: Predictions,
        objects: Targets,
        knowledge: Knowledge,
        ignored_BA: Tensor | None = None,
    ) -> Losses:
        """The labels' losses, squared errors of responses, and smooth L1 of features and relations."""
        ours, theirs = features_of(student), features_of(knowledge.dense)
        instances = knowledge.image_K, knowledge.anchor_K
        relation = relation_loss(ours.class_features_BAF[instances], theirs.class_features_BAF[instances])
        return {
            **supervised(detector, student, objects, ignored_BA),
            **squared_error(student, knowledge, self.config.class_weight),
            "old feature": self.config.feature_weight * tower_loss(ours, theirs),
            "old relation": self.config.relation_weight * relation,
        }
