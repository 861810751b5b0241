"""`ciod compare`: two runs on the same images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ciod_core.evaluation.records import read_report
from ciod_core.experiment.folder import Experiment
from tests.cli.conftest import Ciod


def test_differences_are_those_of_the_reports(own_copy: Path, ciod: Ciod) -> None:
    outcome = ciod("compare", "joint2", "step2", "--experiment", own_copy, "--samples", "20", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert (found["first"], found["second"], found["images"], found["samples"]) == ("joint2", "step2", 12, 20)
    experiment = Experiment.open(own_copy)
    joint, own = (read_report(experiment, experiment.read().run(name)) for name in ("joint2", "step2"))
    expected = {"all": joint.groups["all"], "old": joint.groups["old"], "new": joint.groups["new"]}
    expected |= {entry.name: entry for entry in joint.per_class}
    after = {**own.groups, **{entry.name: entry for entry in own.per_class}}
    rows = [*found["groups"], *found["per_class"]]
    assert [row["name"] for row in rows] == list(expected)
    for row in rows:
        before = expected[row["name"]].metrics.ap
        assert row["first"] == pytest.approx(before, abs=1e-6)
        assert row["second"] == pytest.approx(after[row["name"]].metrics.ap, abs=1e-6)
        assert before is None or row["difference"] == pytest.approx(row["second"] - row["first"])
        assert before is None or row["low"] <= row["high"]

    again = ciod("compare", "joint2", "step2", "--experiment", own_copy, "--samples", "20", "--json")
    assert again.out == outcome.out
    shown = ciod("compare", "joint2", "step2", "--experiment", own_copy, "--samples", "0")
    assert "all classes" in shown.out and "interval" not in shown.out + shown.err


def test_a_teacher_and_its_student_share_the_old_classes(own_copy: Path, ciod: Ciod) -> None:
    arguments = ("--experiment", own_copy, "--samples", "0", "--json")
    found = json.loads(ciod("compare", "step1", "step2", *arguments).out)
    experiment = Experiment.open(own_copy)
    old = read_report(experiment, experiment.read().run("step2")).groups["old"].metrics.ap
    assert [group["name"] for group in found["groups"]] == ["all"] and len(found["per_class"]) == 5
    assert found["groups"][0]["second"] == pytest.approx(old, abs=1e-6)
    turned = json.loads(ciod("compare", "step2", "step1", *arguments).out)
    assert turned["groups"][0]["difference"] == pytest.approx(-found["groups"][0]["difference"])


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (("step2", "step2"), "compared with itself"),
        (("step1", "step3"), "there is no run 'step3'"),
        (("step1",), "RUN"),
    ],
)
def test_what_cannot_be_compared(trained: Path, ciod: Ciod, runs: tuple[str, ...], expected: str) -> None:
    outcome = ciod("compare", *runs, "--experiment", trained)
    assert outcome.code == 2 and expected in outcome.error_line
