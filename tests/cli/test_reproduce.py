"""`ciod reproduce`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from ciod_core.config.schema import recorded_config
from ciod_core.evaluation.incremental import omega
from ciod_core.experiment.folder import Experiment
from ciod_core.runs.compare import published
from ciod_core.runs.compare.plan import JOINT
from ciod_core.runs.compare.results import MEASURES, Spread, SuiteRow
from tests.cli.conftest import Ciod

# A recipe on a detector and images that a test has time for.
SHORT = ("--epochs", "1", "--image-size", "32", "--batch-size", "5", "--workers", "0", "--device", "cpu")
SHORT += ("--set", "model.name=yolox-micro", "--set", "model.backbone_weights=none")


@pytest.fixture(scope="module")
def eighty_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO's classes by number only: 10 training images that show 8 of them each, and as many to validate on."""
    folder = tmp_path_factory.mktemp("eighty")
    for half in ("train", "val"):
        (folder / half).mkdir()
        images, boxes = [], []
        for image in range(10):
            Image.new("RGB", (64, 64), (20 * image, 90, 200)).save(folder / half / f"{image}.png")
            images.append({"id": image + 1, "file_name": f"{image}.png", "width": 64, "height": 64})
            for place in range(8):
                x, y = place % 4 * 16, place // 4 * 32
                box = {"bbox": [x, y, 14, 30], "area": 14 * 30, "iscrowd": 0}
                boxes.append({"id": len(boxes) + 1, "image_id": image + 1, "category_id": image * 8 + place + 1, **box})
        categories = [{"id": number, "name": f"class {number:02d}"} for number in range(1, 81)]
        (folder / "annotations").mkdir(exist_ok=True)
        document = {"images": images, "annotations": boxes, "categories": categories}
        (folder / "annotations" / f"instances_{half}.json").write_text(json.dumps(document))
    return folder


def test_the_list_has_every_row_and_what_was_published(ciod: Ciod) -> None:
    rows = {row["name"]: row for row in json.loads(ciod("reproduce", "--list", "--json").out)["rows"]}
    assert len(rows) == 26
    assert rows["ilyolox-70+10"] == {
        "name": "ilyolox-70+10",
        "method": "crs-ckd",
        "preset": "published",
        "plan": "70+10",
        "order": "name",
        "ap": {"2": 0.3047},
        "omega": 0.953,
        "upper_bound": 0.3361,
    }
    assert "│ erd-60+20 " in ciod("reproduce", "--list").out


@pytest.mark.parametrize("row", published.published_rows().values(), ids=lambda row: row.name)
def test_published_figures_agree_with_each_other(row: published.PublishedRow) -> None:
    if row.omega is not None:
        assert omega((1.0, row.ap[2]), (1.0, row.upper_bound)) == pytest.approx(row.omega, abs=6e-4)
    config = row.recipe()
    assert config.method.name == row.method and config.training.epochs == 12
    assert (config.method.batch_norm, config.method.trunk_balance, config.method.objectness) == ("update", 0, "hard")
    assert not published.changed_settings(row, config)


@pytest.mark.slow
def test_a_row_is_trained_and_put_beside_what_was_published(ciod: Ciod, eighty_classes: Path, tmp_path: Path) -> None:
    arguments = ("reproduce", "lwf-70+10", "--dataset", eighty_classes, "--out", tmp_path / "lwf", *SHORT)
    outcome = ciod(*arguments)
    assert outcome.code == 0, outcome.err
    assert "warning: not the recipe: model.name is yolox-micro, not gfl-r50" in outcome.err
    assert "warning: not COCO 2017: 10 training images show an object, there it is 117,266" in outcome.err
    assert "training.device" not in outcome.err and "data.workers" not in outcome.err
    table = [[cell.strip() for cell in line.split("│")[1:-1]] for line in outcome.out.splitlines() if "│" in line]
    assert [row[:2] for row in table] == [
        ["AP after step 2", "7.10"],
        ["AP of the upper bound", "40.20"],
        ["RelGap", "82.34"],
        ["Ω", "58.80"],
    ]

    manifest = Experiment.open(tmp_path / "lwf").read()
    epochs = {run.name: run.config["training"]["epochs"] for run in manifest.runs}
    assert epochs == {"step1": 1, "joint2": 1, "step2-lwf": 1}
    again = ciod(*arguments, "--json")
    assert "3 runs, 3 of them finished already" in again.err
    figure = json.loads(again.out)["figures"][0]
    measured = manifest.run("step2-lwf").metrics["all"]
    assert figure["measured"] == measured and figure["difference"] == pytest.approx(measured - 0.071)

    other = ciod("reproduce", "lwf-60+20", "--dataset", eighty_classes, "--out", tmp_path / "lwf", *SHORT)
    assert other.code == 2 and "its experiment has another plan or dataset" in other.error_line


def test_a_dry_run_names_commands_that_train_the_same(ciod: Ciod, eighty_classes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dry run"
    arguments = ("reproduce", "ilyolox-70+10", "--dataset", eighty_classes, "--out", folder, *SHORT, "--dry-run")
    document = json.loads(ciod(*arguments, "--json").out)
    assert not folder.exists()
    assert [(run["run"], run["images"], run["epochs"], run["iterations"]) for run in document["runs"]] == [
        ("step1", 9, 1, 2),
        ("joint2", 10, 1, 2),
        ("step2-crs-ckd", 2, 1, 1),
    ]
    assert all(run["seconds"] == run["iterations"] * run["seconds_per_iteration"] > 0 for run in document["runs"])
    words = [shlex.split(command) for command in document["commands"]]
    assert [line[:2] for line in words] == [
        ["ciod", name] for name in ("split", "train-step", "train-step", "train-step", "evaluate")
    ]
    for command in words[:2]:
        run = ciod(*command[1:], *(("--device", "cpu", "--workers", "0") if command[1] == "train-step" else ()))
        assert run.code == 0, run.err
    record = Experiment.open(folder).read().run("step1")
    changed = published.changed_settings(published.find_row("ilyolox-70+10"), recorded_config(record.config))
    assert {key: now for key, (_, now) in changed.items() if key != "training.precision"} == {
        "model.name": "yolox-micro",
        "model.backbone_weights": "none",
        "data.image_size": 32,
        "training.epochs": 1,
        "training.batch_size": 5,
    }


def test_figures_of_several_steps_and_seeds() -> None:
    row = published.find_row("ilyolox-20x4")

    def measured(method: str, step: int, *values: float) -> SuiteRow:
        spreads = dict.fromkeys(MEASURES, Spread.of([])) | {"ap_all": Spread.of(values)}
        return SuiteRow(method=method, step=step, seeds=tuple(range(len(values))), measures=spreads)

    figures = published.compare_with(
        row, [measured("base", 1, 0.27, 0.29), measured("crs-ckd", 4, 0.25, 0.25), measured(JOINT, 4, 0.3, 0.3)]
    )
    by_name = {figure.name: figure for figure in figures}
    assert by_name["AP after step 1"].measured == pytest.approx(0.28)
    assert by_name["AP after step 1"].difference == pytest.approx(0.004)
    assert by_name["AP after step 1"].sd == pytest.approx(0.01 * 2**0.5)
    assert by_name["AP after step 2"].measured is None and by_name["AP after step 2"].difference is None
    assert by_name["AP after step 4"].published == 0.268
    assert by_name["AP of the upper bound"].measured == 0.3
    assert by_name["Ω"].published is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "ROW: name a published result; --list shows them"),
        (("ilyolox-70+1",), "did you mean 'ilyolox-70+10'?"),
        (("erd-40+40", "--dataset", "nowhere"), "is neither a file nor a folder"),
        (("erd-40+40", "--epochs", "0"), "--epochs: training.epochs: should be greater than or equal to 1"),
    ],
)
def test_invalid_arguments(ciod: Ciod, arguments: tuple[str, ...], expected: str) -> None:
    outcome = ciod("reproduce", *arguments)
    assert outcome.code in (2, 3)
    assert expected in outcome.error_line
