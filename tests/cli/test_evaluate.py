"""`ciod evaluate`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciod_core.evaluation import evaluate_run
from ciod_core.evaluation.records import read_report, with_report
from ciod_core.evaluation.report import EvaluationReport
from ciod_core.experiment.folder import Experiment
from tests.cli.conftest import Ciod
from tests.helpers.coco_results import plain_ap

QUICK = ("--workers", "0", "--device", "cpu")


def test_the_only_leaf_is_the_default(ciod: Ciod, own_copy: Path) -> None:
    outcome = ciod("evaluate", "--experiment", own_copy, *QUICK, "--json")
    document = json.loads(outcome.out)
    assert outcome.code == 0
    assert document["weights"] == str(own_copy / "step2.safetensors")
    assert document["report"]["groups"].keys() == {"all", "old", "new", "step1", "step2"}
    assert document["report"]["images"] == 12
    assert document["report"]["upper_bound"]["run"] == "joint2"
    assert document["chain"]["runs"] == ["step1", "step2"]


def test_the_result_is_recorded(ciod: Ciod, own_copy: Path) -> None:
    experiment = Experiment.open(own_copy)
    run = experiment.read().run("step2")
    experiment.put_run(run.model_copy(update={"metrics": {}, "outputs": {"weights": run.outputs["weights"]}}))
    (own_copy / "step2" / "metrics.json").unlink()

    document = json.loads(ciod("eval", "step2", "--experiment", own_copy, *QUICK, "--json").out)

    recorded = experiment.read().run("step2")
    groups = document["report"]["groups"]
    assert recorded.metrics == {name: group["metrics"]["ap"] for name, group in groups.items()}
    saved = experiment.verified(recorded.outputs["metrics"], "", "")
    assert json.loads(saved.read_text()) == {**document["report"], "upper_bound": None}
    assert recorded.outputs["weights"] == run.outputs["weights"]


def test_tables(ciod: Ciod, own_copy: Path) -> None:
    plain = ciod("evaluate", "step2", "--experiment", own_copy, *QUICK)
    full = ciod("evaluate", "step2", "--experiment", own_copy, *QUICK, "--per-class-group", "--per-class")
    assert "AP in % on 12 validation images (hotcoco)" in plain.out
    assert "upper bound AP (joint2)" in plain.out
    assert "forgetting of step 1" in plain.out
    for outcome in (plain, full):
        assert all(f"│ {group}" in outcome.out for group in ("all", "old", "new"))
    assert "triangle" not in plain.out
    assert "triangle" in full.out


def test_both_back_ends_agree(ciod: Ciod, own_copy: Path) -> None:
    reports = [
        json.loads(ciod("evaluate", "step2", "--experiment", own_copy, *QUICK, "--json", "--backend", name).out)[
            "report"
        ]
        for name in ("hotcoco", "pycocotools")
    ]
    assert [report.pop("backend") for report in reports] == ["hotcoco", "pycocotools"]
    assert reports[0]["groups"] == reports[1]["groups"]


@pytest.mark.parametrize("outside", [False, True])
def test_saved_detections_give_the_printed_ap_elsewhere(
    ciod: Ciod, own_copy: Path, tmp_path: Path, outside: bool
) -> None:
    """Of a run, and of weights that are none."""
    run = shutil.copy(own_copy / "step2.safetensors", tmp_path / "mine.safetensors") if outside else "step2"
    saved = tmp_path / "new" / "found.json"
    command = ("evaluate", run, "--experiment", own_copy, *QUICK, "--save-detections", saved)
    # Weights that are hardly trained find something at scores this low only.
    outcome = ciod(*command, "--json", "--set", "evaluation.score_threshold=0")
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)["report"]
    assert len(json.loads(saved.read_text())) == report["detections"] > 0
    metrics = report["groups"]["all"]["metrics"]
    ap, ap50, *_ = plain_ap(saved.with_name("found.ground-truth.json"), saved)
    assert (metrics["ap"], metrics["ap50"]) == pytest.approx((ap, ap50), abs=1e-4)
    dataset = json.loads((own_copy / "splits" / "step2.val.json").read_text())
    assert {entry["image_id"] for entry in json.loads(saved.read_text())} <= {
        entry["id"] for entry in dataset["images"]
    }
    assert plain_ap(own_copy / "splits" / "step2.val.json", saved)[0] == pytest.approx(ap), "the dataset's own ids"


def test_a_published_upper_bound_in_percent(ciod: Ciod, own_copy: Path) -> None:
    outcome = ciod("evaluate", "step2", "--experiment", own_copy, *QUICK, "--upper-bound", "33.61", "--json")
    document = json.loads(outcome.out)
    published, ap = document["published_upper_bound"], document["report"]["groups"]["all"]["metrics"]["ap"]
    assert published["ap"] == pytest.approx(0.3361)
    assert published["absolute_gap"] == pytest.approx(0.3361 - ap)
    assert published["omega"] == pytest.approx((1 + ap / 0.3361) / 2)


def test_an_upper_bound_by_name(ciod: Ciod, own_copy: Path) -> None:
    outcome = ciod("evaluate", "step2", "--experiment", own_copy, *QUICK, "--upper-bound", "joint2", "--json")
    assert json.loads(outcome.out)["report"]["upper_bound"]["run"] == "joint2"


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("step9",), 2, "no run of that name"),
        (("step2", "--backend", "coco"), 2, "--backend"),
        (("step2", "--upper-bound", "joint9"), 2, "joint9"),
        (("step2", "--upper-bound", "step1"), 2, "'step1' covers steps 1 to 1, 'step2' steps 1 to 2"),
        (("step2", "--upper-bound", "130"), 2, "130"),
        (("step2", "--upper-bound", "nan"), 2, "nan"),
        (("step2", "--batch-size", "0"), 2, "--batch-size"),
        (("step2", "--save-detections", "."), 2, "--save-detections .: it is a folder; pass the name of a file"),
        (("step2", "--set", "evaluation.nms=1"), 2, "evaluation.nms_iou"),
    ],
)
def test_invalid_arguments(ciod: Ciod, trained: Path, arguments: tuple[str, ...], code: int, expected: str) -> None:
    before = (trained / "experiment.json").read_bytes()
    outcome = ciod("evaluate", "--experiment", trained, *QUICK, *arguments)
    assert expected in outcome.error_line
    assert outcome.code == code
    assert outcome.out == ""
    assert (trained / "experiment.json").read_bytes() == before


def test_several_leaf_runs_need_a_choice(ciod: Ciod, own_copy: Path) -> None:
    experiment = Experiment.open(own_copy)
    experiment.put_run(experiment.read().run("step2").model_copy(update={"name": "step2-b"}))
    outcome = ciod("evaluate", "--experiment", own_copy)
    assert outcome.code == 2
    assert "step2, step2-b" in outcome.error_line


def test_weights_from_elsewhere_are_shown_but_not_recorded(ciod: Ciod, own_copy: Path, tmp_path: Path) -> None:
    foreign = Path(shutil.copy(own_copy / "step2.safetensors", tmp_path / "foreign.safetensors"))
    before = (own_copy / "experiment.json").read_bytes()
    outcome = ciod("evaluate", foreign, "--experiment", own_copy, *QUICK)
    assert outcome.code == 0
    assert "not recorded" in outcome.err
    assert (own_copy / "experiment.json").read_bytes() == before


def test_corrupt_weights(ciod: Ciod, own_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "garbage.safetensors").write_bytes(b"not weights")
    outcome = ciod("evaluate", tmp_path / "garbage.safetensors", "--experiment", own_copy)
    assert outcome.code == 4
    assert "garbage.safetensors" in outcome.error_line


def test_negatives_without_an_image_that_could_be_one(ciod: Ciod, trained: Path) -> None:
    """Every validation image of a planned experiment labels all classes."""
    outcome = ciod("evaluate", "step2", "--experiment", trained, "--negatives", "--device", "cpu", "--workers", "0")
    assert outcome.code == 0
    assert "--negatives has no effect" in outcome.err


def with_metrics(folder: Path, run: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the recorded report of a run, and the manifest with it."""
    experiment = Experiment.open(folder)
    record = experiment.read().run(run)
    report = read_report(experiment, record).to_dict()
    change(report)
    experiment.put_run(with_report(experiment, record, EvaluationReport.model_validate(report)))


def set_ap(report: dict[str, Any], ap: float) -> None:
    for part in (*report["groups"].values(), *report["per_class"]):
        part["metrics"] |= dict.fromkeys(part["metrics"], ap)


@pytest.fixture
def measured(own_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment whose step2 is measured with AP 0.45 for every class; a single epoch gives none."""

    def evaluate(experiment: Experiment, *arguments: object, **settings: object) -> EvaluationReport:
        return read_report(experiment, experiment.read().run("step2"))

    with_metrics(own_copy, "step2", lambda report: set_ap(report, 0.45))
    monkeypatch.setattr(evaluate_run, "evaluate_weights", evaluate)
    return own_copy


def test_what_was_kept_and_learned_in_a_sentence(ciod: Ciod, measured: Path) -> None:
    with_metrics(measured, "step1", lambda report: set_ap(report, 0.5))
    with_metrics(measured, "joint2", lambda report: set_ap(report, 0.6))
    document = json.loads(ciod("evaluate", "step2", "--experiment", measured, *QUICK, "--json").out)
    assert document["chain"]["flavours"]["ap"]["kept"] == [pytest.approx(0.9)]
    assert document["report"]["upper_bound"]["new_share"] == pytest.approx(0.75)
    words = " ".join(ciod("evaluate", "step2", "--experiment", measured, *QUICK).out.split())
    assert "step2 keeps 90 % of step 1's AP; new classes reach 75 % of joint training" in words


def test_an_upper_bound_below_the_run(ciod: Ciod, measured: Path) -> None:
    with_metrics(measured, "joint2", lambda report: set_ap(report, 0.001))
    outcome = ciod("evaluate", "step2", "--experiment", measured, *QUICK)
    assert (
        "warning: joint2 is no upper bound: its AP is lower than that of step2 (all classes 0.1 to 45.0" in outcome.err
    )
    assert "ratios are left out; it was trained for 1 epoch, step1 → step2 for 2" in outcome.err
    values = {
        line.split("│")[1].strip(): line.split("│")[2].strip() for line in outcome.out.splitlines() if "│" in line
    }
    assert [values[name] for name in ("RelGap, %", "Ω")] == ["–", "–"]
    assert values["RPD, mean relative deficit of new classes, %"] == "–"
    assert "of joint training" not in outcome.out
    assert "joint2 is no upper bound" in ciod("status", measured).err
    assert len(json.loads(ciod("evaluate", "step2", "--experiment", measured, *QUICK, "--json").out)["warnings"]) == 1


def test_a_given_upper_bound_below_the_run(ciod: Ciod, measured: Path) -> None:
    outcome = ciod("evaluate", "step2", "--experiment", measured, *QUICK, "--upper-bound", "1.5", "--json")
    document = json.loads(outcome.out)
    assert document["published_upper_bound"]["relative_gap"] is document["published_upper_bound"]["omega"] is None
    assert document["warnings"] == ["the upper bound 1.5 is below the AP of step2, 45.0; ratios are left out"]
