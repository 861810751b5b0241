"""`ciod split`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ciod_core.data.formats.source import DatasetSource
from ciod_core.experiment.folder import Experiment
from tests.cli.conftest import Ciod
from tests.helpers.exports import EXPORTS

# Under every protocol it leaves each class of the few images a box.
SEED = 5


@pytest.fixture
def dataset(shapes_dataset: DatasetSource) -> Path:
    return shapes_dataset.train.annotations.parents[1]


def test_tables(ciod: Ciod, dataset: Path, tmp_path: Path) -> None:
    outcome = ciod("split", dataset, "--plan", "5+3", "--out", tmp_path / "e")
    assert outcome.code == 0
    for heading in ("hidden old boxes", "hidden future boxes", "shared images", "Boxes per class"):
        assert heading in outcome.out
    for name in ("circle", "triangle"):
        assert name in outcome.out
    assert "ciod train-step" in outcome.err


def test_json_agrees_with_the_files(ciod: Ciod, dataset: Path, tmp_path: Path) -> None:
    outcome = ciod("split", dataset, "--plan", "5+3", "--out", tmp_path / "e", "--json")
    document = json.loads(outcome.out)
    assert [step["step"] for step in document["steps"]] == [1, 2]
    for step in document["steps"]:
        coco = json.loads(Path(step["train"]).read_text())
        assert len(coco["images"]) == step["images"]
        assert len(coco["annotations"]) == sum(step["boxes_per_class"].values())
        assert {category["name"] for category in coco["categories"]} == set(step["classes"])


def test_protocol_seed_and_left_out_classes_are_shown(ciod: Ciod, dataset: Path, tmp_path: Path) -> None:
    arguments = ("split", dataset, "--plan", "3+2", "--leave-out", "rest", "--protocol", "disjoint", "--seed", SEED)
    lines = ciod(*arguments, "--out", tmp_path / "e").out.splitlines()
    manifest = Experiment.open(tmp_path / "e").read()
    assert f"plan 3+2, order name, protocol disjoint, seed {SEED}: training images" in lines[0]
    header, first = lines[2].split("┃"), lines[4].split("│")
    hidden = manifest.steps[0].statistics.hidden_left_out_boxes
    assert int(first[header.index(" hidden left-out boxes ")]) == hidden > 0
    assert first[header.index(" shared images ")].strip() == "–"
    assert f"Left out: {', '.join(manifest.plan.left_out)}" in lines
    assert f"Images that no step trains on: {manifest.plan.unused_images}" in lines
    assert manifest.plan.unused_images


def test_absent_seed_and_left_out_classes_are_not_mentioned(ciod: Ciod, dataset: Path, tmp_path: Path) -> None:
    out = ciod("split", dataset, "--plan", "5+3", "--out", tmp_path / "e").out
    assert "protocol overlap: training images" in out
    for text in ("seed", "left out", "left-out", "no step"):
        assert text not in out.lower()


def test_json_has_protocol_seed_and_left_out_classes(ciod: Ciod, dataset: Path, tmp_path: Path) -> None:
    arguments = ("split", dataset, "--plan", "3+2", "--leave-out", "rest", "--protocol", "loco", "--seed", SEED)
    document = json.loads(ciod(*arguments, "--out", tmp_path / "e", "--json").out)
    plan = Experiment.open(tmp_path / "e").read().plan
    assert document["plan"] == plan.model_dump(mode="json")
    assert (plan.protocol, plan.seed, len(plan.left_out)) == ("loco", SEED, 3)
    assert [step["hidden_left_out_boxes"] > 0 for step in document["steps"]] == [True, True]


def test_a_plan_file(ciod: Ciod, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("steps: [[star, circle], [square]]\nleave_out: rest")
    outcome = ciod("split", dataset, "--plan", "mine.yaml")
    assert outcome.code == 0
    assert "plan 2+1 of mine.yaml, order listed" in outcome.out
    assert Experiment.open(tmp_path / f"{dataset.name}-mine").read().classes.names == ("star", "circle", "square")


def test_default_folder_is_named_after_dataset_and_plan(
    ciod: Ciod, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ciod("split", dataset, "--plan", "4x2").code == 0
    assert (tmp_path / f"{dataset.name}-4x2" / "experiment.json").is_file()


@pytest.mark.slow
def test_demo_generates_its_images_and_is_repeatable(ciod: Ciod, tmp_path: Path) -> None:
    first = ciod("split", "demo", "--plan", "5+3", "--out", tmp_path / "a", "--seed", "1", "--json")
    second = ciod(
        "split",
        "demo",
        "--plan",
        "5+3",
        "--out",
        tmp_path / "b",
        "--data",
        tmp_path / "a" / "data",
        "--seed",
        "1",
        "--json",
    )
    assert first.code == second.code == 0
    assert (tmp_path / "a" / "data" / "train").is_dir()
    assert not (tmp_path / "b" / "data").exists()
    steps = [[step["boxes_per_class"] for step in json.loads(outcome.out)["steps"]] for outcome in (first, second)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize(
    "mistake", [("--plan", "4+"), ("--plan", "4+4", "--protocol", "x"), ("--plan", "none.yaml")], ids="-".join
)
def test_mistakes_are_found_before_the_demo_images_are_generated(
    ciod: Ciod, tmp_path: Path, mistake: tuple[str, ...]
) -> None:
    assert ciod("split", "demo", "--out", tmp_path / "e", *mistake).code == 2
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("--plan", "5+4"), 2, "5+4"),
        (("--plan", "five"), 2, "'five' is not a plan"),
        (("--plan", "5+3", "--order", "nmae"), 2, "nmae"),
        (("--plan", "5+3", "--seed", "1"), 2, "--seed: nothing is random in the protocol 'overlap'"),
        (("--plan", "5+3", "--data", "x"), 2, "--data belongs to the dataset 'demo'"),
        (("--plan", "5+3", "--protocol", "locco"), 2, "did you mean 'loco'?"),
        (("--plan", "4+3"), 2, "--leave-out rest"),
        (("--plan", "4+3", "--leave-out", "stra"), 2, "did you mean 'star'?"),
        (("--plan", "no.yaml", "--order", "id"), 2, "--order: no.yaml lists the classes"),
        (("--plan", "no.yaml"), 2, "--plan no.yaml: No such file or directory"),
        (("--plan", "1x8", "--protocol", "disjoint", "--seed", "1"), 3, "lost all training boxes"),
    ],
)
def test_invalid_arguments(
    ciod: Ciod, dataset: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    outcome = ciod("split", dataset, "--out", tmp_path / "e", *arguments)
    assert outcome.code == code
    assert expected in outcome.error_line
    assert outcome.out == ""
    assert not (tmp_path / "e").exists()


class TestHoldOut:
    @pytest.fixture
    def export(self, shapes_dataset: DatasetSource, tmp_path: Path) -> Path:
        """A dataset of one annotation file."""
        EXPORTS["Label Studio COCO"](shapes_dataset.train, tmp_path / "export")
        return tmp_path / "export"

    def test_the_validation_half_is_made(self, ciod: Ciod, export: Path, tmp_path: Path) -> None:
        refused = ciod("split", export, "--plan", "4+4", "--out", tmp_path / "e")
        assert refused.code == 3
        assert "hold out some of the training images with --hold-out, or name the" in refused.error_line
        arguments = ("split", export, "--plan", "4+4", "--out", tmp_path / "e", "--hold-out", "0.25")
        outcome = ciod(*arguments, "--hold-out-seed", "2", "--json")
        assert outcome.code == 0, outcome.err
        assert "Held out for validation: 6 of 24 images (seed 2)" in outcome.err
        assert outcome.err.count("Looking for images that are alike …\n") == 1
        record = {"amount": 0.25, "seed": 2, "images": 6, "of_images": 24}
        assert json.loads(outcome.out)["held_out"] == record
        assert len(json.loads((tmp_path / "e" / "splits" / "step2.val.json").read_text())["images"]) == 6

    def test_check_shows_it(self, ciod: Ciod, export: Path) -> None:
        outcome = ciod("check", export, "--hold-out", "5", "--json")
        assert outcome.code == 0, outcome.err
        document = json.loads(outcome.out)
        assert (document["train"]["images"], document["val"]["images"], document["findings"]) == (19, 5, [])

    @pytest.mark.parametrize(
        ("command", "arguments", "expected"),
        [
            *(
                (command, ("--hold-out", value), f"--hold-out {value}: pass a share of the training images")
                for command in ("split", "check")
                for value in ("0", "-1", "1.5", "nan", "inf")
            ),
            ("split", ("--hold-out", "many"), "Invalid value for '--hold-out'"),
            ("split", ("--hold-out", "24"), "has 24 training images; pass less"),
            ("check", ("--hold-out", "0.99"), "has 24 training images; pass less"),
            ("split", ("--hold-out", "0.2", "--hold-out-seed", "-1"), "Invalid value for '--hold-out-seed'"),
            ("split", ("--hold-out-seed", "1"), "--hold-out-seed: nothing is held out; pass --hold-out, too"),
            ("check", ("--hold-out", "5", "--skip-images"), "leave --skip-images out"),
        ],
    )
    def test_invalid_arguments(
        self, ciod: Ciod, export: Path, tmp_path: Path, command: str, arguments: tuple[str, ...], expected: str
    ) -> None:
        plan = ("--plan", "4+4", "--out", tmp_path / "e") if command == "split" else ()
        outcome = ciod(command, export, *plan, *arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert expected in outcome.error_line
        assert not (tmp_path / "e").exists()

    @pytest.mark.parametrize("command", ["split", "check"])
    def test_a_dataset_with_a_validation_half(self, ciod: Ciod, dataset: Path, tmp_path: Path, command: str) -> None:
        plan = ("--plan", "4+4", "--out", tmp_path / "e") if command == "split" else ()
        outcome = ciod(command, dataset, *plan, "--hold-out", "0.2")
        assert outcome.code == 2
        assert "--hold-out: shapes has a validation half" in outcome.error_line
        assert "leave --hold-out out" in outcome.error_line

    def test_the_demo_has_one(self, ciod: Ciod, tmp_path: Path) -> None:
        outcome = ciod("split", "demo", "--plan", "4+4", "--out", tmp_path / "e", "--hold-out", "0.2")
        assert outcome.code == 2 and "'demo' has a validation half" in outcome.error_line
        assert not (tmp_path / "e").exists()


def test_missing_dataset(ciod: Ciod, tmp_path: Path) -> None:
    outcome = ciod("split", tmp_path / "nothing", "--plan", "5+3", "--out", tmp_path / "e")
    assert outcome.code == 3
    assert "instances_train" in outcome.error_line


def test_broken_annotations(ciod: Ciod, tmp_path: Path) -> None:
    (tmp_path / "d" / "annotations").mkdir(parents=True)
    for half in ("train", "val"):
        (tmp_path / "d" / half).mkdir()
        (tmp_path / "d" / "annotations" / f"instances_{half}.json").write_text('{"images": [')
    outcome = ciod("split", tmp_path / "d", "--plan", "5+3", "--out", tmp_path / "e")
    assert outcome.code == 3
    assert "instances_train.json" in outcome.error_line


def test_an_existing_experiment_is_kept(ciod: Ciod, dataset: Path, tmp_path: Path) -> None:
    arguments = ("split", dataset, "--out", tmp_path / "e", "--plan")
    assert ciod(*arguments, "5+3").code == 0
    refused = ciod(*arguments, "4+4")
    assert refused.code == 2
    assert "--overwrite" in refused.error_line
    assert ciod(*arguments, "4+4", "--overwrite").code == 0


def test_classes_that_look_alike_are_a_warning(ciod: Ciod, shapes_copy: Path, tmp_path: Path) -> None:
    for path in (shapes_copy / "annotations").iterdir():
        path.write_text(path.read_text().replace('"square"', '"Circle"'))
    outcome = ciod("split", shapes_copy, "--plan", "5+3", "--out", tmp_path / "e")
    assert (outcome.code, outcome.err.count("warning: class 'circle' differs from 'Circle' by case")) == (0, 1)
    assert "warning: category-look-alike (1)" in ciod("check", shapes_copy).out
