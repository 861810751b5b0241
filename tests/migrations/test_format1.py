"""Everything that the code before format versions wrote is still read, by every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import recorded_config
from ciod_core.evaluation.chain import chain_to
from ciod_core.evaluation.records import read_report
from ciod_core.experiment.folder import Experiment
from ciod_core.methods.branches import BranchConfig
from ciod_core.migrations import MANIFEST_VERSION
from ciod_core.teachers.bank import KnowledgeBank
from tests.migrations.conftest import Ciod

COMMON = ("--device", "cpu", "--workers", "0")
RUNS = {
    "step1": "finished",
    "step2": "finished",
    "step2-frozen-branch": "finished",
    "step2-erd-replay": "finished",
    "joint2": "finished",
    "small": "finished",
    "step3": "finished",
    "step2-pseudo-label": "interrupted",
}
EVALUATED = [name for name, status in RUNS.items() if status == "finished"]


def test_the_archive_has_no_versions(format1: Path) -> None:
    """Else these tests prove nothing."""
    assert "format_version" not in json.loads((format1 / "experiment.json").read_text())
    assert "format_version" not in json.loads((format1 / "step1" / "metrics.json").read_text())
    for name, key in (("step2.knowledge", "ciod-knowledge"), ("step2-pseudo-label/state/last", "ciod-state")):
        with safe_open(format1 / f"{name}.safetensors", framework="numpy") as file:
            assert "format_version" not in json.loads(file.metadata()[key])


def test_status_lists_every_run(format1: Path, ciod: Ciod) -> None:
    answer = ciod("status", format1, "--json")
    assert answer.code == 0, answer.err
    assert {run["name"]: run["status"] for run in json.loads(answer.out)["runs"]} == RUNS


@pytest.mark.parametrize("name", EVALUATED)
def test_weights_are_evaluated(name: str, own_format1: Path, ciod: Ciod) -> None:
    answer = ciod("evaluate", name, "--experiment", own_format1, *COMMON, "--json")
    assert answer.code == 0, answer.err
    assert "NaN" not in answer.out
    report = json.loads(answer.out)["report"]
    assert report["run"] == name
    # Only step 3 has classes without validation images.
    assert (report["groups"]["new"]["metrics"]["ap"] is None) == (name == "step3")


@pytest.mark.parametrize("name", EVALUATED)
def test_reports_are_read(name: str, format1: Path) -> None:
    experiment = Experiment.open(format1)
    report = read_report(experiment, experiment.read().run(name))
    assert report.run == name and report.groups["all"].boxes > 0


def test_the_measures_of_a_chain(format1: Path) -> None:
    experiment = Experiment.open(format1)
    chain = chain_to(experiment, experiment.read().run("step2"))
    assert chain is not None and chain.runs == ("step1", "step2") and chain.upper_bounds == {2: "joint2"}


@pytest.mark.parametrize("name", RUNS)
def test_settings_are_read_from_the_record_and_from_the_file(name: str, format1: Path) -> None:
    recorded = Experiment.open(format1).read().run(name).config
    config = recorded_config(recorded)
    assert config.training.epochs == recorded["training"]["epochs"]
    # A file without the section has today's defaults; a run without it was trained as runs were then.
    read = resolve_config(format1 / name / "config.yaml")
    assert (config.section("branch", BranchConfig).depth, read.section("branch", BranchConfig).depth) == (
        "head",
        "neck",
    )
    as_then = {"branch": config.section("branch", BranchConfig), "method": config.method}
    assert read.model_copy(update=as_then) == config


def test_the_bank_is_read(format1: Path) -> None:
    bank = KnowledgeBank(format1 / "step2.knowledge.safetensors")
    assert len(bank) == 5 and bank.identity.classes == ("bar", "cross", "disk")


def test_a_run_trains_from_the_bank(own_format1: Path, ciod: Ciod) -> None:
    bank = own_format1 / "step2.knowledge.safetensors"
    answer = ciod(
        "train-step", "--experiment", own_format1, "--teacher", "step1", "--knowledge", bank, "--name", "again",
        "--epochs", "1", "--batch-size", "4", "--image-size", "64", *COMMON,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    record = Experiment.open(own_format1).read().run("again")
    assert record.status == "finished" and "knowledge" in record.inputs
    assert json.loads((own_format1 / "experiment.json").read_text())["format_version"] == MANIFEST_VERSION


def test_an_interrupted_run_is_finished(own_format1: Path, ciod: Ciod) -> None:
    answer = ciod(
        "train-step", "--experiment", own_format1, "--teacher", "step1", "--method", "pseudo-label", "--resume"
    )
    assert answer.code == 0, answer.err
    record = Experiment.open(own_format1).read().run("step2-pseudo-label")
    assert record.status == "finished" and record.metrics["all"] is not None
