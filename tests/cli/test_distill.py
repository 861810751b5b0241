"""`ciod distill`: the bank, what is said about it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciod_core.classes import class_table
from ciod_core.experiment.folder import Experiment
from ciod_core.teachers.bank import KnowledgeBank
from tests.cli.conftest import TINY, Ciod
from tests.helpers.chains import write_data, write_teacher

LOW_THRESHOLDS = ("--workers", "0", "--set", "resampler.rule=fixed", "--set", "resampler.fixed_score=0.00002")


def test_the_teacher_runs_on_the_next_steps_images(ciod: Ciod, own_copy: Path) -> None:
    outcome = ciod("distill", "--experiment", own_copy, "--teacher", "step1", *LOW_THRESHOLDS)
    assert outcome.code == 0, outcome.err
    bank = KnowledgeBank(own_copy / "step2.knowledge.safetensors")
    assert outcome.out.splitlines()[-1] == str(bank.path)
    assert "hidden boxes" in outcome.out and "Boxes by score" in outcome.out
    assert num_boxes(bank) > len(bank)
    assert f"Ran on {len(bank)} images, 0 were in the bank" in outcome.err
    assert outcome.err.splitlines()[0] == "Running the teacher"
    again = ciod("distill", "--experiment", own_copy, "--teacher", "step1", *LOW_THRESHOLDS)
    assert "Running the teacher" not in again.err
    assert f"Ran on 0 images, {len(bank)} were in the bank" in again.err


def test_the_bank_holds_unlabeled_images_too(ciod: Ciod, own_copy: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(photos / f"{index}.png")
    options = ("--experiment", own_copy, "--teacher", "step1", "--workers", "0")
    assert ciod("distill", *options).code == 0
    bank = own_copy / "step2.knowledge.safetensors"
    step_images = len(KnowledgeBank(bank))
    learn = ("train-step", *options[:4], "--name", "with-photos", "--unlabeled", photos, "--knowledge", bank, *TINY[2:])
    missing = ciod(*learn)
    assert missing.code == 2 and f"3 of {step_images + 3} images are not in it" in missing.error_line
    completed = ciod("distill", *options, "--unlabeled", photos)
    assert f"Ran on 3 images, {step_images} were in the bank" in completed.err
    assert f"predictions on {step_images} images of step 2" in completed.out
    learned = ciod(*learn)
    assert learned.code == 0, learned.err


def num_boxes(bank: KnowledgeBank) -> int:
    return sum(len(known) for _, known in bank.items())


def test_json(ciod: Ciod, own_copy: Path) -> None:
    outcome = ciod("distill", "--experiment", own_copy, "--teacher", "step1", *LOW_THRESHOLDS, "--flip", "--json")
    document = json.loads(outcome.out)
    bank = KnowledgeBank(Path(document["bank"]))
    assert document["asked"] == document["summary"]["images"] == len(bank)
    assert (document["step"], document["bytes"]) == (2, bank.path.stat().st_size)
    assert document["description"]["flip"] is True
    assert sum(document["summary"]["histogram"]) == num_boxes(bank)
    assert all(entry["hidden_boxes"] is not None for entry in document["summary"]["per_class"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--teacher", "step2"), 2, "knows the classes of the last step"),
        (("--teacher", "step9"), 2, "step9"),
        (("--teacher", "step1", "--out", "."), 2, " .: it is a folder; pass the name of a file"),
        (("--teacher", "step1", "--scales", "big"), 2, "--scales big: not numbers"),
        (("--teacher", "step1", "--scales", "1,9"), 2, "between 0.1 and 4"),
        (("--teacher", "step1", "--set", "resampler.rule=best"), 2, "resampler.rule"),
    ],
)
def test_invalid_arguments(ciod: Ciod, trained: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    outcome = ciod("distill", "--experiment", trained, "--workers", "0", *arguments)
    assert outcome.code == code and message in outcome.error_line
    assert outcome.err.splitlines() == [outcome.error_line], "an error comes alone"
    assert not list(trained.glob("*.knowledge.safetensors"))


def test_a_bank_of_other_settings_is_not_overwritten(ciod: Ciod, own_copy: Path) -> None:
    assert ciod("distill", "--experiment", own_copy, "--teacher", "step1", *LOW_THRESHOLDS).code == 0
    before = (own_copy / "step2.knowledge.safetensors").read_bytes()
    outcome = ciod("distill", "--experiment", own_copy, "--teacher", "step1", "--workers", "0")
    assert outcome.code == 2 and "a bank is there whose resampler." in outcome.error_line
    assert outcome.err.splitlines() == [outcome.error_line]
    assert (own_copy / "step2.knowledge.safetensors").read_bytes() == before
    assert ciod("distill", "--experiment", own_copy, "--teacher", "step1", "--workers", "0", "--overwrite").code == 0


def test_an_added_step(ciod: Ciod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows what is hidden in it, so nothing is said about recall and precision."""
    teacher = write_teacher(tmp_path / "step1.safetensors", class_table([[("a", 1), ("b", 2)]]))
    data = write_data(tmp_path, "may", {"1.png": ["c"], "2.png": ["c", "c"]})
    (tmp_path / "experiment").mkdir()
    monkeypatch.chdir(tmp_path / "experiment")
    options = ("--epochs", "1", "--batch-size", "2", "--workers", "0", "--device", "cpu", "--image-size", "64")
    added = ciod("train-step", "--teacher", teacher, "--data", data, "--images", tmp_path / "may", *options)
    assert added.code == 0, added.err
    outcome = ciod("distill", "--teacher", teacher, *LOW_THRESHOLDS, "--json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert (document["step"], document["asked"]) == (2, 2)
    assert all(entry["hidden_boxes"] is None for entry in document["summary"]["per_class"])
    knowledge = ("--knowledge", document["bank"], *LOW_THRESHOLDS[2:])
    student = ciod("train-step", "--teacher", teacher, *knowledge, *options, "--name", "from-bank")
    assert student.code == 0, student.err


def test_sample_images_are_drawn(ciod: Ciod, own_copy: Path) -> None:
    command = ("distill", "--experiment", own_copy, "--teacher", "step1", *LOW_THRESHOLDS)
    folder = own_copy / "step2.knowledge.samples"
    assert json.loads(ciod(*command, "--json").out)["pictures"] == []
    assert not folder.exists()
    outcome = ciod(*command, "--draw", "3")
    assert outcome.code == 0, outcome.err
    assert f"Drew 3 of them in {folder}" in outcome.err
    drawn = sorted(str(path) for path in folder.iterdir())
    assert json.loads(ciod(*command, "--draw", "3", "--json").out)["pictures"] == drawn


def test_an_ambiguous_teacher(ciod: Ciod, own_copy: Path) -> None:
    experiment = Experiment.open(own_copy)
    for number in range(7):
        experiment.put_run(experiment.read().run("step2").model_copy(update={"name": f"try{number}"}))
    outcome = ciod("distill", "--experiment", own_copy)
    assert outcome.code == 2
    assert "ambiguous teacher: step2, try0, try1, try2, try3 and 3 more; pass " in outcome.error_line


def test_train_step_finds_the_bank_at_its_default_path(ciod: Ciod, own_copy: Path) -> None:
    method = ("--set", "method.name=pseudo-label", *LOW_THRESHOLDS[2:])
    assert ciod("distill", "--experiment", own_copy, "--teacher", "step1", "--workers", "0", *method).code == 0
    command = ("train-step", "--experiment", own_copy, "--teacher", "step1", *TINY, *method)
    student = ciod(*command, "--name", "banked", "--json")
    assert "  learns from step2.knowledge.safetensors instead of the live teacher" in student.err.splitlines()
    assert json.loads(student.out)["inputs"]["knowledge"]["path"] == "step2.knowledge.safetensors"
    taught = ciod(*command, "--name", "taught", "--knowledge", "none", "--json")
    assert "learns from" not in taught.err and "knowledge" not in json.loads(taught.out)["inputs"]
