"""Fine-tuning: labels alone, no teacher; with the labels of all classes this is joint training."""

from __future__ import annotations

from ciod_core.methods.base import Method


class Finetune(Method):
    """Learns from labels alone."""
