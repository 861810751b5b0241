"""`ciod consolidate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ciod_core.runs.consolidate import LEARNING_RATE
from tests.cli.conftest import TINY, Ciod


def test_the_help_has_the_learning_rate_that_is_used(ciod: Ciod) -> None:
    assert f"Default: {LEARNING_RATE}." in " ".join(ciod("consolidate", "--help").out.replace("│", " ").split())


@pytest.mark.slow
def test_a_detector_with_branches_becomes_one_network(ciod: Ciod, own_copy: Path) -> None:
    branch = ("--teacher", "step1", "--method", "frozen-branch", "--name", "branched")
    assert ciod("train-step", "--experiment", own_copy, *TINY, *branch).code == 0
    outcome = ciod("consolidate", "branched", "--experiment", own_copy, *TINY, "--json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert (document["name"], document["method"]) == ("branched-one", "consolidate")
    assert "without --unlabeled the backbone stays frozen" in outcome.err
    assert Path(document["weights"]).is_file()
    evaluated = ciod("evaluate", "branched-one", "--experiment", own_copy, "--device", "cpu", "--workers", "0")
    assert evaluated.code == 0, evaluated.err


def test_a_detector_without_branches_is_refused(ciod: Ciod, trained: Path) -> None:
    outcome = ciod("consolidate", "step2", "--experiment", trained, *TINY)
    assert outcome.code == 2
    assert "it has no branches" in outcome.error_line
