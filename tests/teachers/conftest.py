"""The trained experiment of the commands' tests serves here too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ciod_core.experiment.folder import Experiment
from ciod_core.model.yolox.detector import YoloxDetector
from tests.cli.conftest import ciod, own_copy, trained

__all__ = ["ciod", "own_copy", "trained"]


@pytest.fixture
def experiment(own_copy: Path) -> Experiment:
    """A copy of the trained experiment that a test may change."""
    return Experiment.open(own_copy)


def widths_of_answers(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Fills with the number of classes of every detector that answers from now on."""
    widths: set[int] = set()
    forward = YoloxDetector.forward

    def watched(self: YoloxDetector, *arguments: Any, **options: Any) -> Any:
        widths.add(sum(self.head_classes))
        return forward(self, *arguments, **options)

    monkeypatch.setattr(YoloxDetector, "forward", watched)
    return widths
