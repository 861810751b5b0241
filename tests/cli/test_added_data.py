"""`ciod train-step --data`: a chain that grows without a plan, from the first images on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ciod_core.experiment.folder import Experiment
from ciod_core.model.checkpoint import read_info
from tests.cli.conftest import TINY, Ciod
from tests.helpers.chains import content_of, write_data

FIRST = {"a.png": ["circle"], "b.png": ["square", "circle"], "c.png": ["square"], "d.png": []}
SECOND = {"a.png": ["star"], "b.png": ["square", "star"]}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, ciod: Ciod) -> Path:
    """The folder of a chain of three steps, beside its data: two with validation data, one without; read only."""
    folder = tmp_path_factory.mktemp("grown")
    write_data(folder, "first", FIRST)
    write_data(folder, "firstval", {"a.png": ["circle", "square"]})
    write_data(folder, "second", SECOND, listed=["star", "square", "moon"])
    write_data(folder, "secondval", {"a.png": ["star", "square"], "b.png": ["star"]})
    write_data(folder, "third", {"a.png": ["circle"]})
    for arguments in (
        ("--data", folder / "first.json", *validation(folder, "firstval"), "--model", "yolox-micro"),
        ("--data", folder / "second.json", *validation(folder, "secondval"), "--teacher", "step1"),
        ("--data", folder / "third.json", "--teacher", "step2", "--replay", "3"),
    ):
        outcome = ciod("train-step", "--experiment", folder / "chain", *TINY, *arguments)
        assert outcome.code == 0, outcome.err
    return folder / "chain"


def validation(folder: Path, name: str) -> tuple[object, ...]:
    return ("--val", folder / f"{name}.json", "--val-images", folder / name)


def test_the_tree_shows_what_each_step_added(ciod: Ciod, grown: Path) -> None:
    out = ciod("status", grown).out
    assert f"{grown}: steps added one by one, without a plan" in " ".join(out.split())
    assert "star; more of square" in out and "no new class; more of circle" in out
    tree = out.splitlines()[out.splitlines().index("runs") + 1 :]
    assert tree[0].startswith("└── step1") and tree[0].endswith("+ circle, square")
    assert tree[1].startswith("    └── step2") and tree[1].endswith("+ star")
    assert tree[2].startswith("        └── step3-replay") and tree[2].endswith("no new class")


def test_weights_name_the_classes_of_all_steps(grown: Path) -> None:
    runs = {run.name: run for run in Experiment.open(grown).read().runs}
    assert [run.parent for run in runs.values()] == [None, "step1", "step2"]
    info = read_info(grown / "step3-replay.safetensors")
    assert info.classes.names == ("circle", "square", "star") and info.step == 3
    assert info.parent_sha256 == runs["step2"].outputs["weights"].sha256
    assert len(runs["step3-replay"].replayed) == 2, "the images of step 2 are all that the run before had"


def test_every_class_is_evaluated_where_it_is_labeled(ciod: Ciod, grown: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(grown, tmp_path / "chain"))
    outcome = ciod("evaluate", "step3-replay", "--experiment", folder, "--per-class", "--per-class-group")
    assert outcome.code == 0, outcome.err
    assert "AP in % on 3 validation images, each class on those that label it" in outcome.out
    assert "each class on the validation images of the first step that labels it" in outcome.err
    assert "forgetting of steps 1–2" in outcome.out
    report = json.loads(ciod("evaluate", "step3-replay", "--experiment", folder, "--json").out)["report"]
    images = {entry["name"]: (entry["images"], entry["boxes"]) for entry in report["per_class"]}
    assert images == {"circle": (1, 1), "square": (3, 2), "star": (2, 2)}
    assert (report["groups"]["old"]["boxes"], report["groups"]["step1"]["boxes"]) == (5, 2)
    first = json.loads((folder / "step1" / "metrics.json").read_text())
    assert first["groups"]["step1"]["boxes"] == 2, "step 1 is measured on the same images later on"


def test_train_step_reports_the_step_and_skipped_classes(ciod: Ciod, grown: Path, tmp_path: Path) -> None:
    data, folder = grown.parent, Path(shutil.copytree(grown, tmp_path / "chain"))
    # Another method learns the step that is there already.
    arguments = ("--data", data / "second.json", *validation(data, "secondval"), "--teacher", "step1")
    outcome = ciod("train-step", "--experiment", folder, *TINY, *arguments, "--method", "finetune", "--json")
    assert json.loads(outcome.out)["name"] == "step2-finetune"
    assert f"Step 2 of {folder}: star, more of square (2 images)\n" in outcome.err
    assert "no training image shows moon; skipped" in outcome.err
    assert len(Experiment.open(folder).read().steps) == 3
    joint = ciod("train-step", "--experiment", folder, *TINY, "--method", "joint", "--model", "yolox-micro", "--json")
    assert json.loads(joint.out)["inputs"].keys() == {"train1", "train2", "train3"}


def test_joint_training_on_datasets_that_label_different_classes(ciod: Ciod, grown: Path, tmp_path: Path) -> None:
    data, folder = grown.parent, tmp_path / "joint"
    datasets = [part for name in ("first", "second", "third") for part in ("--data", data / f"{name}.json")]
    start = ("train-step", "--experiment", folder, "--method", "joint", "--model", "yolox-micro", *TINY, "--json")
    missing = ciod(*start, *datasets, "--data", data / "nowhere.json")
    assert missing.code == 3 and not folder.exists()
    outcome = ciod(*start, *datasets)
    assert outcome.code == 0, outcome.err
    run = json.loads(outcome.out)
    assert (run["name"], run["step"]) == ("joint3", 3)
    assert run["inputs"].keys() == {"train1", "train2", "train3"}
    assert [step.classes for step in Experiment.open(folder).read().steps] == [("circle", "square"), ("star",), ()]
    # The same again finds its steps; with fewer epochs it would be another run.
    again = ciod(*start, *datasets, "--name", "again")
    assert again.code == 0 and len(Experiment.open(folder).read().steps) == 3


def test_images_are_held_out_of_data_without_a_validation_half(ciod: Ciod, grown: Path, tmp_path: Path) -> None:
    data, folder = grown.parent, tmp_path / "held"
    start = ("train-step", "--experiment", folder, "--method", "joint", "--model", "yolox-micro", *TINY, "--json")
    # Of several datasets, it is for those without one; here the second has one, at its side.
    write_data(tmp_path, "moons_train", {f"{number}.png": ["moon"] for number in range(5)})
    write_data(tmp_path, "moons_val", {"a.png": ["moon"]})
    datasets = ("--data", data / "first.json", "--data", tmp_path / "moons_train.json")
    outcome = ciod(*start, *datasets, "--hold-out", "1")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("Held out for validation: 1 of 4 images (seed 0)") == 1
    first, second = (step.data for step in Experiment.open(folder).read().steps)
    assert first.val.held_out.images == 1 and second.val.held_out is None
    assert json.loads(outcome.out)["metrics"]
    refused = ciod(*start, "--name", "b", *("--data", tmp_path / "moons_train.json"), "--hold-out", "1")
    assert refused.code == 2 and "has a validation half" in refused.error_line


def test_weights_without_an_experiment_and_data_without_validation(
    ciod: Ciod, grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(grown / "step1.safetensors", "step1.safetensors")
    write_data(tmp_path, "new", {"a.png": ["moon"]})
    outcome = ciod("train-step", "--teacher", "step1.safetensors", "--data", "new.json", *TINY)
    assert outcome.code == 0, outcome.err
    assert outcome.out == "step2.safetensors\n"
    assert "no validation image shows moon; their AP is not measured; pass --val, or --hold-out to" in outcome.err
    assert "Not evaluated: there is no validation data (--val, --hold-out)" in outcome.err
    runs = Experiment.open(Path()).read().runs
    assert [(run.name, run.kind, run.parent) for run in runs] == [
        ("step1", "imported", None),
        ("step2", "step", "step1"),
    ]
    refused = ciod("evaluate", "step2")
    assert refused.code == 2 and "no validation image labels a class" in refused.error_line
    again = ciod(
        "train-step",
        "--teacher",
        "step2",
        "--data",
        grown.parent / "second.json",
        *TINY,
        *validation(grown.parent, "secondval"),
    )
    assert again.code == 0, again.err
    # The first data that labels squares can say how well the weights from elsewhere knew them.
    report = json.loads(ciod("evaluate", "step1", "--json").out)["report"]
    assert [(entry["name"], entry["images"]) for entry in report["per_class"]] == [("circle", 0), ("square", 2)]
    lines = ciod("status").out.splitlines()
    assert "circle, square; learned before" in "\n".join(lines)
    assert lines[lines.index("runs") + 1].startswith("└── step1  base  finished")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("--images", "x"), 2, "--images: it belongs to the dataset of --data"),
        (("--val-images", "x"), 2, "--val-images: it belongs to the dataset of --data"),
        (("--hold-out", "0.2"), 2, "--hold-out: it belongs to the dataset of --data"),
        (("--data", "{data}/third.json", "--hold-out", "2"), 2, "third.json has 1 training image; pass less"),
        (("--data", "{data}/second.json", "--method", "joint"), 2, "has a step 1 from other data already"),
        (
            ("--data", "{data}/first.json", "--data", "{data}/second.json"),
            2,
            "or train on all of them with method 'joint'",
        ),
        (
            ("--data", "{data}/first.json", "--data", "{data}/second.json", "--method", "joint", "--images", "x"),
            2,
            "the paths of its files belong to one dataset",
        ),
        (("--data", "{data}/second.json", "--step", "2"), 2, "leave --step out"),
        (("--data", "{data}/second.json", "--name", "../evil"), 2, "--name ../evil"),
        (("--data", "{data}/second.json"), 2, "has a step 1 from other data already"),
        (("--data", "{data}/nowhere.json"), 3, "nowhere.json: is neither a file nor a folder"),
        (
            ("--data", "{data}/second.json", "--images", "nowhere", "--teacher", "step3-replay"),
            3,
            "nowhere: no such folder",
        ),
        (("--data", "{data}/second.json", "--val", "nowhere.json", "--teacher", "step3-replay"), 3, "nowhere.json"),
        (("--data", "{data}/second.json", "--val-images", "{data}", "--teacher", "step3-replay"), 2, "it with --val"),
        (("--data", "{data}/second.json", "--teacher", "step9"), 2, "no run of that name"),
        (("--data", "{data}/third.json", "--teacher", "step1"), 2, "has a step 2 from other data already (runs: step2"),
        (
            ("--data", "{data}/second.json", "--teacher", "step3-replay", "--model", "yolox-nano"),
            2,
            "--model yolox-nano",
        ),
        (("--data", "{data}/second.json", "--teacher", "step3-replay", "--device", "warp"), 2, "warp"),
        (("--teacher", "step3-replay"), 2, "there is no step left; add one with --data"),
    ],
)
def test_invalid_arguments(ciod: Ciod, grown: Path, arguments: tuple[str, ...], code: int, expected: str) -> None:
    before = content_of(grown)
    outcome = ciod("train-step", "--experiment", grown, *TINY, *(text.format(data=grown.parent) for text in arguments))
    assert expected in outcome.error_line
    assert outcome.code == code
    assert outcome.out == ""
    assert content_of(grown) == before


def test_a_dry_run_takes_an_added_step_back(ciod: Ciod, grown: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(grown.parent, tmp_path / "copy")) / "chain"
    before = content_of(folder)
    data = write_data(tmp_path, "fourth", {"a.png": ["moon"], "b.png": ["moon", "star"]})
    arguments = ("--data", data, "--teacher", "step3-replay", *TINY, "--dry-run")
    outcome = ciod("train-step", "--experiment", folder, *arguments)
    assert outcome.code == 0, outcome.err
    assert "\nmethod frozen-branch: " in outcome.err and "\nbranches: 1, the last adds " in outcome.err
    assert "Step 4 of" in outcome.err and "moon, more of star (2 images)" in outcome.err
    row = [cell.strip() for line in outcome.out.splitlines() if line.startswith("│") for cell in line.split("│")[1:-1]]
    assert row[0] == "step4" and row[2:5] == ["2", "1", "1"] and row[-1] == "cpu"
    assert content_of(folder) == before
    first = ("--model", "yolox-micro", "--dry-run", "--json")
    new = ciod("train-step", "--experiment", tmp_path / "new", "--data", data, *TINY, *first)
    assert json.loads(new.out)["iterations"] == 1 and not (tmp_path / "new").exists()
