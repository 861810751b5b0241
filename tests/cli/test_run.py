"""`ciod run`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ciod_cli import comparison
from ciod_core.runs.compare import table
from ciod_core.runs.compare.results import Spread
from tests.cli.conftest import TINY, Ciod

# As the runs of the shared experiment were trained.
SAME = (*TINY, "--model", "yolox-micro", "--no-upper-bounds")


@pytest.mark.slow
def test_only_what_is_missing_is_trained_and_everything_is_compared(ciod: Ciod, own_copy: Path) -> None:
    outcome = ciod("run", own_copy, "--methods", "finetune,crs-ckd", *SAME)
    assert outcome.code == 0, outcome.err
    assert "3 runs, 1 of them finished already" in outcome.err
    assert "1/2  step2-finetune: AP " in outcome.err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in outcome.out.splitlines() if "│" in line]
    assert [row[0] for row in rows] == ["step 1", "finetune", "ceiling", "crs-ckd"]

    again = ciod("run", own_copy, "--methods", "finetune,crs-ckd", *SAME, "--json")
    assert "3 runs, 3 of them finished already" in again.err
    document = json.loads(again.out)
    assert [(row["method"], row["step"]) for row in document["rows"]] == [
        ("base", 1),
        ("finetune", 2),
        ("ceiling", 2),
        ("crs-ckd", 2),
    ]
    manifest = json.loads((own_copy / "experiment.json").read_text())
    metrics = {run["name"]: run["metrics"] for run in manifest["runs"]}
    trained = [row for row in document["rows"] if row["method"] != "ceiling"]
    for row, name in zip(trained, ("step1", "step2-finetune", "step2-crs-ckd"), strict=True):
        assert row["measures"]["ap_all"]["values"] == [metrics[name]["all"]]


def test_a_finished_run_with_other_settings_is_refused(ciod: Ciod, trained: Path) -> None:
    outcome = ciod("run", trained, *TINY, "--model", "yolox-micro")
    assert outcome.code == 2
    assert "run 'joint2' is finished with training.epochs = 1, now it is 2" in outcome.error_line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--methods", "finetun"), "did you mean 'finetune'"),
        (("--set", "training.seed=1"), "pass --seed and --seeds"),
        (("--set", "training.epoch=1"), "epochs"),
    ],
)
def test_invalid_arguments(ciod: Ciod, trained: Path, arguments: tuple[str, ...], expected: str) -> None:
    outcome = ciod("run", trained, *arguments)
    assert outcome.code == 2
    assert expected in outcome.error_line


def test_a_folder_without_an_experiment(ciod: Ciod, tmp_path: Path) -> None:
    assert "make one with 'ciod split'" in ciod("run", tmp_path).error_line


def test_missing_validation_data_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    comparison._show((), 1)
    assert "no validation data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("measure", "mean", "expected"),
    [
        ("relative_gap", -0.0004, "0.0"),
        ("ap_all", -0.0, "0.0"),
        ("forgetting", -0.0006, "-0.1"),
        ("omega", 1.0, "1.000"),
    ],
)
def test_zero_has_no_sign(measure: str, mean: float, expected: str) -> None:
    assert table._cell(measure, Spread(values=(mean,), mean=mean, sd=None)) == expected
