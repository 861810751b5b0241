"""The folder of a published detector: it loads, its card is true, and what the card says to run runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import ciod
from ciod_core.classes import class_table
from ciod_core.data.formats.source import DatasetSource
from ciod_core.errors import ExportError
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.new_chain import find_or_begin
from ciod_core.export import hub
from ciod_core.export.hub import export_to_hub
from ciod_core.export.model_card import model_card
from ciod_core.files import sha256_of_file
from ciod_core.model.checkpoint import Source, read_info
from ciod_core.runs.train import train_step
from ciod_core.temporaries import TEMPORARY
from tests.export.conftest import CLASSES
from tests.training.conftest import tiny_config

pytest.importorskip("onnxruntime")
FILES = ["README.md", "config.json", "model.onnx", "model.safetensors", "preprocessor_config.json"]


def header_of(card: str) -> dict[str, object]:
    header: dict[str, object] = yaml.safe_load(card.split("---\n")[1])
    return header


@pytest.fixture(scope="module")
def published(checkpoint: Path, onnx_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of five classes as a folder; its ONNX model, which takes long to make, is that of other tests."""
    folder = tmp_path_factory.mktemp("published") / "detector"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "export", lambda weights, out, nms: shutil.copy(onnx_model, out))
        export_to_hub(checkpoint, folder, license="mit")
    return folder


def test_what_a_killed_export_left_goes(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{TEMPORARY}1").mkdir()
    monkeypatch.setattr(hub, "export", lambda weights, out, nms: out.touch())
    export_to_hub(checkpoint, tmp_path / "detector", license="mit")
    assert [path.name for path in tmp_path.iterdir()] == ["detector"]


@pytest.mark.slow
def test_the_folder_is_a_detector(published: Path, checkpoint: Path) -> None:
    assert sorted(path.name for path in published.iterdir()) == FILES
    loaded = ciod.load(published, device="cpu")
    assert loaded.classes == CLASSES.names and loaded.image_size == 128
    assert (published / "model.safetensors").read_bytes() == checkpoint.read_bytes()
    config = yaml.safe_load((published / "config.json").read_text())
    assert config["id2label"]["3"] == "dog" and config["category_ids"] == [17, 6, 90, 3, 44]
    assert yaml.safe_load((published / "preprocessor_config.json").read_text())["size"] == {"longest_edge": 128}


@pytest.mark.slow
def test_the_folder_begins_a_chain(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, manifest = find_or_begin(None, published)
    assert [step.classes for step in manifest.steps] == [("cat", "bus", "kite"), ("dog", "owl")]
    assert manifest.runs[0].outputs["weights"].sha256 == sha256_of_file(published / "model.safetensors")


@pytest.mark.slow
def test_what_the_card_says_to_run_runs_without_ciod(published: Path, tmp_path: Path) -> None:
    card = (published / "README.md").read_text()
    _, code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    coarse = np.random.default_rng(4).integers(0, 256, (16, 26, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((200, 120)).save(tmp_path / "photo.png")
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "photo.png")]
    done = subprocess.run(command, cwd=published, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    found = ciod.load(published / "model.onnx").predict(tmp_path / "photo.png", score=0.3)
    assert abs(len(lines) - len(found)) <= 2 and len(found) > 10
    assert lines[0].split()[:2] == [found.names[0], f"{found.scores[0]:.2f}".rstrip("0")]
    boxes = [np.array(line[line.index("[") + 1 : -1].split(","), dtype=float) for line in lines]
    # ciod cuts them to what the detector saw of the image, whole pixels of 128/200 of its size.
    boxes = [box.clip(0, (200, 118.75) * 2) for box in boxes]
    assert all(np.abs(found.boxes - box).max(axis=1).min() <= 0.51 for box in boxes)


@pytest.mark.slow
def test_the_hub_library_reads_the_card(published: Path) -> None:
    card = pytest.importorskip("huggingface_hub").ModelCard.load(published / "README.md")
    assert card.data.license == "mit" and card.data.pipeline_tag == "object-detection"


def test_a_card_has_the_figures_of_the_run(shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    experiment = create_experiment(shapes_dataset, "5+3", "name", tmp_path / "experiment")
    config = tiny_config(epochs=1)
    train_step(experiment, config)
    run = train_step(experiment, tiny_config("finetune", epochs=1), teacher="step1")
    info = read_info(experiment.weights_path(run.name))
    (tmp_path / "files").mkdir()
    card = model_card(info, tmp_path / "files", name="shapes", experiment=experiment, run=run)
    header = header_of(card)
    assert "license" not in header and header["tags"][3] == "yolox-micro"  # type: ignore[index]
    (result,) = header["model-index"][0]["results"]  # type: ignore[index]
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert values == {f"AP of {group} classes": round(run.metrics[group], 4) for group in ("all", "old", "new")}
    manifest = Experiment.open(experiment.folder).read()
    for name in ("step1", run.name):
        assert f"`{name}`" in card and manifest.run(name).outputs["weights"].sha256[:16] in card
    assert manifest.dataset is not None and manifest.dataset.train.annotations.sha256 in card
    assert "plan 5+3, order name, protocol overlap" in card


def test_a_card_of_imported_weights_names_their_source(checkpoint: Path, tmp_path: Path) -> None:
    source = Source(file="yolox_nano.pth", sha256="ab" * 32, license="apache-2.0")
    names = class_table([[("a|b", 1), ("`*_#", 2), ("x\n---\ny", 3)], [("dog", 4), ("owl", 5)]])
    info = read_info(checkpoint).model_copy(update={"source": source, "classes": names})
    card = model_card(info, tmp_path, name="detector")
    assert header_of(card)["license"] == "apache-2.0" and "model-index" not in header_of(card)
    assert f"`yolox\\_nano.pth` (SHA-256 `{'ab' * 32}`, license apache-2.0)" in card
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert "| a\\|b | 1 | 1 |" in rows and "| \\`\\*\\_\\# | 2 | 1 |" in rows and "| x --- y | 3 | 1 |" in rows


def test_a_failed_export_leaves_nothing_behind(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ExportError("no")

    monkeypatch.setattr(hub, "export", fail)
    with pytest.raises(ExportError):
        export_to_hub(checkpoint, tmp_path / "detector")
    assert not list(tmp_path.iterdir())
