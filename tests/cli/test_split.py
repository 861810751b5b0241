"""`ciod split`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ciod_core.data.source import DatasetSource
from tests.cli.conftest import Ciod


@pytest.fixture
def dataset(shapes_dataset: DatasetSource) -> Path:
    return shapes_dataset.train.annotations.parents[1]


def test_tables(ciod: Ciod, dataset: Path, tmp_path: Path) -> None:
    answer = ciod("split", dataset, "--plan", "5+3", "--out", tmp_path / "e")
    assert answer.code == 0
    for heading in ("hidden old boxes", "hidden future boxes", "shared images", "Boxes per class"):
        assert heading in answer.out
    for name in ("circle", "triangle"):
        assert name in answer.out
    assert "ciod train-step" in answer.err


def test_json_agrees_with_the_files(ciod: Ciod, dataset: Path, tmp_path: Path) -> None:
    answer = ciod("split", dataset, "--plan", "5+3", "--out", tmp_path / "e", "--json")
    document = json.loads(answer.out)
    assert [step["step"] for step in document["steps"]] == [1, 2]
    for step in document["steps"]:
        coco = json.loads(Path(step["train"]).read_text())
        assert len(coco["images"]) == step["images"]
        assert len(coco["annotations"]) == sum(step["boxes_per_class"].values())
        assert {category["name"] for category in coco["categories"]} == set(step["classes"])


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
    steps = [[step["boxes_per_class"] for step in json.loads(answer.out)["steps"]] for answer in (first, second)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("--plan", "5+4"), 2, "5+4"),
        (("--plan", "five"), 2, "'five' is not a plan"),
        (("--plan", "5+3", "--order", "nmae"), 2, "nmae"),
        (("--plan", "5+3", "--seed", "1"), 2, "belong to the dataset 'demo'"),
    ],
)
def test_mistakes(
    ciod: Ciod, dataset: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    answer = ciod("split", dataset, "--out", tmp_path / "e", *arguments)
    assert answer.code == code
    assert expected in answer.error_line
    assert answer.out == ""
    assert not (tmp_path / "e").exists()


def test_missing_dataset(ciod: Ciod, tmp_path: Path) -> None:
    answer = ciod("split", tmp_path / "nothing", "--plan", "5+3", "--out", tmp_path / "e")
    assert answer.code == 3
    assert "instances_train" in answer.error_line


def test_broken_annotations(ciod: Ciod, tmp_path: Path) -> None:
    (tmp_path / "d" / "annotations").mkdir(parents=True)
    for half in ("train", "val"):
        (tmp_path / "d" / half).mkdir()
        (tmp_path / "d" / "annotations" / f"instances_{half}.json").write_text('{"images": [')
    answer = ciod("split", tmp_path / "d", "--plan", "5+3", "--out", tmp_path / "e")
    assert answer.code == 3
    assert "instances_train.json" in answer.error_line


def test_an_existing_experiment_is_kept(ciod: Ciod, dataset: Path, tmp_path: Path) -> None:
    arguments = ("split", dataset, "--out", tmp_path / "e", "--plan")
    assert ciod(*arguments, "5+3").code == 0
    refused = ciod(*arguments, "4+4")
    assert refused.code == 2
    assert "--overwrite" in refused.error_line
    assert ciod(*arguments, "4+4", "--overwrite").code == 0
