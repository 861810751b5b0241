"""From a teacher's boxes to labels that people correct, and back into training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciod_core.data.formats.coco import read_coco
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.step_data import read_step
from ciod_core.teachers.bank import KnowledgeBank
from tests.cli.conftest import TINY, Ciod
from tests.cli.test_any_teacher import old_names, write_results

OVERLAP = ("--set", "resampler.ground_truth_iou=1")


def correct(labels: Path, old: list[str]) -> tuple[Path, dict[str, list[Any]]]:
    """What a tool makes of the written file: ids of its own, no scores; a box is deleted and one is added.

    Returns:
        the file, and the boxes of old classes that it has, by file name.
    """
    content = json.loads((labels / "annotations.json").read_text())
    category = {entry["name"]: entry["id"] for entry in content["categories"]}
    of_old = [entry for entry in content["annotations"] if entry["category_id"] in [category[name] for name in old]]
    first, second = content["images"][:2]
    content["annotations"].remove(next(entry for entry in of_old if entry["image_id"] == first["id"]))
    added = {"image_id": second["id"], "category_id": category[old[2]], "bbox": [2, 3, 40, 50], "score": 1}
    content["annotations"].append(added)
    number = {entry["id"]: place for place, entry in enumerate(reversed(content["images"]), start=1)}
    expected: dict[str, list[Any]] = {entry["file_name"]: [] for entry in content["images"]}
    names = {entry["id"]: entry["file_name"] for entry in content["images"]}
    for place, entry in enumerate(content["annotations"], start=1):
        entry.pop("score", None)
        if entry in of_old or entry is added:
            expected[names[entry["image_id"]]].append(entry["bbox"])
        entry |= {"id": place, "image_id": number[entry["image_id"]]}
    for image in content["images"]:
        image["id"] = number[image["id"]]
    (labels / "annotations.json").write_text(json.dumps(content))
    return labels / "annotations.json", expected


def test_corrected_labels_teach_the_step(ciod: Ciod, own_copy: Path) -> None:
    """A box that was deleted is no longer taught, one that was added is, and nothing else has changed."""
    here, labels = ("--experiment", own_copy), own_copy / "labels"
    outcome = ciod("distill", *here, "--teacher", write_results(own_copy), "--write-labels", labels, *OVERLAP, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["labels"] == str(labels)
    experiment = Experiment.open(own_copy)
    table, image_dir = read_step(experiment, experiment.read(), 2)
    assert f"Wrote {table.num_boxes} labels of the step and {table.num_images} boxes of old classes" in outcome.err
    assert {path.resolve() for path in (labels / "images").iterdir()} == {
        (image_dir / name).resolve() for name in table.file_names_I.tolist()
    }
    reviewed, expected = correct(labels, old_names(own_copy))
    assert sorted(map(len, expected.values())) == [0, *[1] * (table.num_images - 2), 2]

    out = own_copy / "reviewed.knowledge.safetensors"
    again = ciod("distill", *here, "--teacher", reviewed, "--out", out)
    assert again.code == 0, again.err
    bank, hashes = KnowledgeBank(out), experiment.image_hashes()
    for name in table.file_names_I.tolist():
        known = bank.get(hashes.get(image_dir / name))
        assert known is not None and set(known.scores_K.tolist()) <= {1.0}
        xywh = np.concatenate([known.boxes_K4[:, :2], known.boxes_K4[:, 2:] - known.boxes_K4[:, :2]], axis=1)
        assert sorted(xywh.tolist()) == sorted(map(list, expected[name]))
    train = ("train-step", *here, "--teacher", "step1", "--knowledge", out, "--name", "reviewed", *TINY[2:])
    student = ciod(*train, "--json")
    assert student.code == 0, student.err
    assert json.loads(student.out)["inputs"]["knowledge"]["path"] == out.name


@pytest.mark.parametrize("labels_format", ["coco", "yolo"])
def test_corrected_labels_are_a_dataset_with_old_and_new_classes(
    ciod: Ciod, own_copy: Path, tmp_path: Path, labels_format: str
) -> None:
    labels, chain = tmp_path / "labels", tmp_path / "chain"
    options = ("--write-labels", labels, "--labels-format", labels_format, *OVERLAP)
    assert ciod("distill", "--experiment", own_copy, "--teacher", write_results(own_copy), *options).code == 0
    start = ("--experiment", chain, "--teacher", own_copy / "step1.safetensors", "--data", labels)
    student = ciod("train-step", *start, "--method", "finetune", *TINY[2:])
    assert student.code == 0, student.err
    old = old_names(own_copy)
    boxes = Experiment.open(chain).read().step(2).statistics.boxes_per_class
    assert set(boxes) > set(old) and sum(boxes[name] for name in old) == len(
        read_coco(own_copy / "splits" / "step2.train.json").image_ids_I
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--write-labels", "FULL"), "exists, and may hold corrected labels; pass a new folder"),
        (
            ("--write-labels", "new", "--labels-format", "voc"),
            "unknown format 'voc'; choose from coco, yolo",
        ),
        (("--teacher", "FULL"), "no dataset in a layout that is understood"),
    ],
)
def test_faults_are_said_before_the_teacher_runs(
    ciod: Ciod, own_copy: Path, arguments: tuple[str, ...], message: str
) -> None:
    full = str(own_copy / "splits")
    given = [word.replace("FULL", full) for word in arguments]
    outcome = ciod("distill", "--experiment", own_copy, "--teacher", "step1", *given)
    assert outcome.code in (2, 3) and message in outcome.error_line
    assert not list(own_copy.glob("*.knowledge.safetensors")) and "Running" not in outcome.err


def test_the_folder_of_a_run_is_not_taken_for_a_dataset(
    ciod: Ciod, own_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_copy)
    outcome = ciod("distill", "--teacher", "step1", "--workers", "0")
    assert outcome.code == 0, outcome.err
