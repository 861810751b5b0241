"""SID: selective and inter-related distillation (Peng et al., CVIU 2021) for anchor-free detectors.

Selective: what classifies objects is distilled, what locates them is not. Inter-related: relations between instances
are distilled, too.
"""

from __future__ import annotations

from pydantic import Field

from ciod_core.config.schema import NonNegative, Section
from ciod_core.distiller.features import features_of, relation_loss, tower_loss
from ciod_core.distiller.responses import squared_class_error
from ciod_core.methods.matching import MatchingMethod, OldObjects
from ciod_core.model.base import Losses, Predictions
from ciod_core.resampler.select import apply_rule


class SidConfig(Section):
    """SID: class outputs and the class tower's features where the resampler selects, and relations of the objects."""

    class_weight: NonNegative = Field(1.0, description="of the loss of class outputs")
    feature_weight: NonNegative = Field(1.0, description="of the loss of features")
    relation_weight: NonNegative = Field(1.0, description="of the loss of relations between objects")


class Sid(MatchingMethod):
    """Class outputs and features are matched at all selected anchor points, before NMS; relations object by object."""

    Config = SidConfig
    section = "sid"
    needs = frozenset({"selected", "dense", "features"})
    config: SidConfig

    def match(self, student: Predictions, teacher: Predictions, old: OldObjects) -> Losses:
        """Squared errors of class outputs, and smooth L1 of features and relations."""
        kept_BA = apply_rule(teacher, self.resampler) & old.trusted_BA
        kept = kept_BA.nonzero(as_tuple=True)
        ours_BAF, theirs_BAF = (features_of(predictions).class_features_BAF for predictions in (student, teacher))
        objects = old.knowledge.image_K, old.knowledge.anchor_K
        return {
            "old class": self.config.class_weight * squared_class_error(student, teacher, kept_BA),
            "old feature": self.config.feature_weight * tower_loss(ours_BAF[kept], theirs_BAF[kept]),
            "old relation": self.config.relation_weight * relation_loss(ours_BAF[objects], theirs_BAF[objects]),
        }
