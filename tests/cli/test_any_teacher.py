"""`ciod distill --teacher` with a detector that ciod did not train, and training from what it said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciod_core.data.formats.coco import read_coco
from ciod_core.files import sha256_of_file
from ciod_core.teachers.bank import KnowledgeBank, write_bank
from tests.cli.conftest import TINY, Ciod
from tests.helpers.elsewhere import result, write_json

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "torchvision_teacher.py"
MODEL = "fasterrcnn_mobilenet_v3_large_320_fpn"


def old_names(experiment: Path) -> list[str]:
    entries = json.loads((experiment / "experiment.json").read_text())["classes"]["entries"]
    return [entry["name"] for entry in entries if entry["step"] == 1]


def write_results(experiment: Path, **more: Any) -> Path:
    """One sure outcome on every image of step 2, each of another old class."""
    names = old_names(experiment)
    table = read_coco(experiment / "splits" / "step2.train.json")
    entries = [
        result(image_id, row % len(names), [8, 8, 30, 30], 0.9, **more)
        for row, image_id in enumerate(table.image_ids_I.tolist())
    ]
    categories = [{"id": label, "name": name} for label, name in enumerate(names)]
    return write_json(experiment / "results.json", {"annotations": entries, "categories": categories})


@pytest.mark.parametrize("method", ["crs-ckd", "pseudo-label"])
def test_a_student_learns_from_coco_results(ciod: Ciod, own_copy: Path, method: str) -> None:
    results = write_results(own_copy)
    chosen = ("--set", f"method.name={method}")
    outcome = ciod("distill", "--experiment", own_copy, "--teacher", results, *chosen, "--json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert (document["step"], document["notes"]) == (2, [])
    assert document["description"]["teacher"] == "results"
    assert document["description"]["teacher_sha256"] == sha256_of_file(results)
    bank = KnowledgeBank(Path(document["bank"]))
    assert bank.path == own_copy / "step2.knowledge.safetensors"
    assert [len(known) for _, known in bank.items()] == [1] * document["asked"]
    student = ciod(
        *("train-step", "--experiment", own_copy, "--teacher", "step1", "--knowledge", bank.path, *TINY[2:]),
        *(*chosen, "--name", "student", "--json"),
    )
    assert student.code == 0, student.err
    assert json.loads(student.out)["inputs"]["knowledge"]["sha256"] == sha256_of_file(bank.path)
    assert "learns from step2.knowledge.safetensors instead of the live teacher" in student.err


def test_a_model_distilled_from_results_teaches_the_next_step(ciod: Ciod, own_copy: Path) -> None:
    """A student learns from results alone, and teaches the next step in their place."""
    results = write_results(own_copy)
    options = ("--experiment", own_copy, "--name", "mine", "--image-size", "64", *TINY[2:])
    outcome = ciod("distill-into", "yolox-nano", "--teacher", results, *options, "--json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert (document["kind"], document["step"], document["parent"]) == ("distilled", 1, None)
    assert set(document["inputs"]) == {"knowledge", "val"}
    assert document["metrics"]["all"] is not None
    following = ("train-step", "--experiment", own_copy, "--teacher", "mine", "--name", "onward", *TINY[2:], "--json")
    onward = ciod(*following)
    assert onward.code == 0, onward.err
    assert json.loads(onward.out)["parent"] == "mine"
    compared = json.loads(ciod("evaluate", "onward", "--experiment", own_copy, "--json").out)
    assert compared["chain"]["runs"] == ["mine", "onward"]
    photos = ciod("distill-into", "yolox-nano", "--teacher", results, "--experiment", own_copy, "--images", ".")
    assert photos.code == 2 and "lists images by id, not by file" in photos.error_line


@pytest.mark.slow
def test_a_torchvision_detector_is_a_teacher(ciod: Ciod, own_copy: Path) -> None:
    """By way of the example script, whose detector has random weights."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    detector = get_model(MODEL, weights=None, weights_backbone=None, num_classes=6)
    torch.save(detector.state_dict(), own_copy / "weights.pth")
    (own_copy / "names.txt").write_text("\n".join(["__background__", *old_names(own_copy)]))
    images = json.loads((own_copy / "experiment.json").read_text())["dataset"]["train"]["images"]
    command = [sys.executable, str(EXAMPLE), own_copy / "splits" / "step2.train.json", own_copy / images]
    command += ["--model", MODEL, "--weights", own_copy / "weights.pth", "--classes", own_copy / "names.txt"]
    command += ["--out", own_copy / "results.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=EXAMPLE.parents[1])
    assert done.returncode == 0, done.stderr
    low_thresholds = ("--set", "resampler.min_score=0.1")
    outcome = ciod("distill", "--experiment", own_copy, "--teacher", own_copy / "results.json", *low_thresholds)
    assert outcome.code == 0, outcome.err
    assert "ignored classes (not among the old classes): 1 of 6 (__background__)" in outcome.err
    bank = own_copy / "step2.knowledge.safetensors"
    assert any(len(known) for _, known in KnowledgeBank(bank).items())
    options = (*TINY[2:], *low_thresholds, "--name", "student")
    student = ciod("train-step", "--experiment", own_copy, "--teacher", "step1", "--knowledge", bank, *options)
    assert student.code == 0, student.err


def test_a_step_that_does_not_exist(ciod: Ciod, own_copy: Path) -> None:
    outcome = ciod("distill", "--experiment", own_copy, "--teacher", write_results(own_copy), "--step", "3")
    assert outcome.code == 2 and "there is no step 3; the plan has steps 1 to 2" in outcome.error_line


def test_a_bank_from_results_must_fit_the_training(ciod: Ciod, own_copy: Path) -> None:
    """The hash of the student's own teacher is not compared; its classes and the selection are."""
    assert ciod("distill", "--experiment", own_copy, "--teacher", write_results(own_copy)).code == 0
    bank = KnowledgeBank(own_copy / "step2.knowledge.safetensors")
    train = ("train-step", "--experiment", own_copy, "--teacher", "step1", *TINY[2:], "--name", "student")
    outcome = ciod(*train, "--knowledge", bank.path, "--set", "resampler.min_score=0.3")
    assert outcome.code == 2 and "its resampler.min_score is 0.2, not 0.3; run 'ciod distill'" in outcome.error_line
    names = bank.identity.classes
    other = bank.identity.model_copy(update={"classes": (*names[1:], names[0])})
    write_bank(own_copy / "other.safetensors", other, dict(bank.items()))
    outcome = ciod(*train, "--knowledge", own_copy / "other.safetensors")
    assert outcome.code == 2 and "other.safetensors: its classes is" in outcome.error_line


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--teacher", "RESULTS", "--flip"), 2, "only supported for ciod weights"),
        (("--teacher", "RESULTS", "--scales", "2"), 2, "only supported for ciod weights"),
        (("--teacher", "RESULTS", "--step", "1"), 2, " 1: step 1 has no old classes; pass 2 or later"),
        (("--teacher", "RESULTS", "--teacher-classes", "none.txt"), 3, "none.txt: cannot be read"),
        (("--teacher", "RESULTS", "--set", "resampler.rule=global-stat"), 2, "set it to crs or fixed"),
        (("--teacher", "RESULTS", "--set", "method.name=lwf"), 2, "'lwf' cannot learn from a bank"),
        (("--teacher", "none.json"), 2, " none.json: no such file; pass COCO results"),
        (("--teacher", "FOLDER/step1/config.yaml"), 2, "config.yaml: unsupported file type; pass ciod's weights"),
        (("--teacher", "FOLDER/splits/step2.train.json"), 2, "is not among the teacher's classes (5 of 5 old"),
        (("--teacher", "step1", "--step", "2"), 2, "ciod checkpoints store their class list; leave it out"),
        (("--teacher", "step1", "--teacher-classes", "x"), 2, "ciod checkpoints store their class list"),
    ],
)
def test_invalid_arguments(ciod: Ciod, own_copy: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    results = str(write_results(own_copy))
    given = [part.replace("RESULTS", results).replace("FOLDER", str(own_copy)) for part in arguments]
    outcome = ciod("distill", "--experiment", own_copy, *given)
    assert outcome.code == code, outcome.err
    assert message in outcome.error_line
    assert not list(own_copy.glob("*.knowledge.safetensors"))


def test_score_vectors_are_written_to_the_bank(ciod: Ciod, own_copy: Path) -> None:
    names = old_names(own_copy)
    results = write_results(own_copy)
    content = json.loads(results.read_text())
    for entry in content["annotations"]:
        entry["scores"] = [0.9 if label == entry["category_id"] else 0.45 for label in range(len(names))]
    assert ciod("distill", "--experiment", own_copy, "--teacher", write_json(results, content)).code == 0
    for _, kept in KnowledgeBank(own_copy / "step2.knowledge.safetensors").items():
        others = np.delete(kept.class_logits_KC[0].numpy(), int(kept.labels_K[0]))
        np.testing.assert_allclose(others, 0.0, atol=1e-3)


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "FILE"),
        ("evaluate", "FILE", "--experiment", "FOLDER"),
        ("export", "FILE"),
        ("export", "FILE", "--overwrite"),
        ("consolidate", "FILE"),
        ("train-step", "--experiment", "FOLDER", "--name", "x", "--teacher", "FILE"),
        ("train-step", "--experiment", "FOLDER", "--name", "x", "--init", "FILE"),
    ],
)
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [("best.pth", b"PK\x03\x04 and more", "a file of torch"), ("model.onnx", b"\x08\x08", "an ONNX model")],
)
def test_files_of_other_programs_as_weights(
    ciod: Ciod,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    name: str,
    content: bytes,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    places = {"FILE": name, "FOLDER": trained}
    outcome = ciod(*(places.get(word, word) for word in command))
    assert outcome.code == 4
    assert f"{name} is {expected}, not ciod's weights; 'ciod import {name}'" in outcome.error_line
    assert Path(name).read_bytes() == content and len(list(tmp_path.iterdir())) == 1
