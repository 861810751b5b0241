"""Fine-tuning: the new ground truth alone, no teacher. What a detector forgets when nobody helps it."""

from __future__ import annotations

from ciod_core.methods.base import Method
from ciod_core.methods.supervised import supervised


def finetune() -> Method:
    """Learn from labels only; with the labels of all classes this is joint training."""
    return Method(selection=None, transfer=supervised)
