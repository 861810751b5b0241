"""`ciod demo`: the whole story, at a size that a test can afford."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ciod_core.demo import story as demo
from ciod_core.experiment.folder import Experiment
from ciod_core.runs.compare.plan import Epochs
from tests.cli.conftest import Ciod


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images, few epochs."""
    for story in ("QUICK", "FULL"):
        epochs = Epochs(first=2, later=1)
        monkeypatch.setattr(demo, story, replace(getattr(demo, story), train_images=16, val_images=8, epochs=epochs))


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_every_run_is_trained_once_and_compared(ciod: Ciod, tmp_path: Path) -> None:
    outcome = ciod("demo", "--full", "--out", tmp_path / "demo", "--seed", "3")
    assert outcome.code == 0, outcome.err
    assert "5 runs, 0 of them finished already" in outcome.err
    for name in ("step 1", "finetune", "pseudo-label", "auto", "joint, the upper bound"):
        assert f"│ {name} " in outcome.out
    experiment = Experiment.open(tmp_path / "demo")
    assert [
        experiment.read().run(name).config["training"]["epochs"]
        for name in ("step1-seed3", "step2-seed3", "joint2-seed3")
    ] == [2, 1, 3]
    assert {run.seed for run in experiment.read().runs} == {3}
    assert {run.device for run in experiment.read().runs} == {"cpu (1 thread)"}

    again = ciod("demo", "--full", "--out", tmp_path / "demo", "--seed", "3", "--json")
    assert "5 runs, 5 of them finished already" in again.err
    document = json.loads(again.out)
    assert document["seeds"] == 1
    by_method = {row["method"]: row["measures"] for row in document["rows"]}
    assert by_method["auto"]["ap_all"]["mean"] == experiment.read().run("step2-seed3").metrics["all"]
    assert by_method["joint"]["ap_old"]["mean"] == experiment.read().run("joint2-seed3").metrics["old"]


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_short_demo(ciod: Ciod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = ciod("demo", "--json")
    assert outcome.code == 0, outcome.err
    assert "Two shapes, then two more; this takes about 3 minutes" in outcome.err
    assert {row["method"] for row in json.loads(outcome.out)["rows"]} == {"base", "finetune", "auto", "ceiling"}
    report = tmp_path / "ciod-demo" / "report.html"
    assert outcome.err.rstrip().endswith(str(report)) and "data:image/jpeg" in report.read_text()
    refused = ciod("demo", "--full", "--out", "ciod-demo")
    assert refused.code == 2 and "it holds another experiment" in refused.error_line


@pytest.mark.usefixtures("small")
def test_the_folder_of_another_experiment_is_refused(ciod: Ciod, trained: Path) -> None:
    outcome = ciod("demo", "--out", trained)
    assert outcome.code == 2
    assert "it holds another experiment; pass an empty folder" in outcome.error_line
