"""Training over images that cannot be loaded: stopped, or skipped, counted and told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config
from ciod_core.data.formats.source import DatasetSource, resolve_dataset
from ciod_core.errors import CheckpointError, DataError
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import STATE_FILE, Experiment
from ciod_core.runs.train import train_step
from ciod_core.runs.verify import accept_changes
from ciod_core.training.progress import TrainingListener, TrainingRecord
from ciod_core.training.resume import TrainingState, load_state, save_state
from ciod_core.training.skipped import SkippedImages
from tests.training.conftest import tiny_config


class Warnings(TrainingListener):
    """Keeps notes and warnings, and may interrupt the run."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.iterations = 0
        self.interrupt_at = interrupt_at

    def begin(self, run: str, epochs: int, iterations: int, notes: Sequence[str]) -> None:
        self.notes.extend(notes)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def record(self, record: TrainingRecord) -> None:
        self.iterations = record.iteration
        if record.iteration == self.interrupt_at:
            raise KeyboardInterrupt


@pytest.fixture
def damaged(shapes_dataset: DatasetSource, tmp_path: Path) -> tuple[Experiment, list[str]]:
    """An experiment of its own with one missing and one truncated training image, and their names."""
    folder = shutil.copytree(shapes_dataset.train.annotations.parents[1], tmp_path / "shapes")
    source = resolve_dataset(str(folder))
    experiment = create_experiment(source, "5+3", "name", tmp_path / "experiment")
    listed = json.loads(experiment.read().train_file(1).locate(experiment.folder).read_text(encoding="utf-8"))["images"]
    missing, truncated = names = [entry["file_name"] for entry in listed[2:4]]
    (source.train.image_dir / missing).unlink()
    path = source.train.image_dir / truncated
    path.write_bytes(path.read_bytes()[:200])
    return experiment, sorted(names)


def settings(policy: str, workers: int = 0) -> Config:
    config = tiny_config()
    return config.model_copy(
        update={"data": config.data.model_copy(update={"corrupt_images": policy, "workers": workers})}
    )


def test_by_default_a_broken_image_ends_the_run_and_is_named(damaged: tuple[Experiment, list[str]]) -> None:
    experiment, names = damaged
    with pytest.raises(DataError, match=rf"({'|'.join(names)}): image (file is missing|is truncated)"):
        train_step(experiment, tiny_config())
    assert experiment.read().run("step1").status == "failed"
    assert experiment.read().run("step1").skipped_images == ()


def test_skipped_images_are_counted_told_and_recorded_whatever_loads_them(
    damaged: tuple[Experiment, list[str]],
) -> None:
    experiment, names = damaged
    runs, told = [], []
    for workers in (0, 2):
        listener = Warnings()
        runs.append(train_step(experiment, settings("skip", workers), overwrite=bool(runs), listener=listener))
        told.append(listener)
    assert sorted(runs[0].skipped_images) == names
    assert runs[0].skipped_images == runs[1].skipped_images
    assert runs[0].outputs == runs[1].outputs, "the same replacements, whoever loads"
    assert experiment.read().run("step1").skipped_images == runs[1].skipped_images
    assert told[0].warnings == told[1].warnings
    assert told[0].iterations == told[1].iterations == 2 * -(-experiment.read().step(1).statistics.images // 8)
    first = runs[0].skipped_images[0]
    assert told[0].warnings[-1] == f"2 images cannot be loaded and are replaced by others, the first is {first}"
    assert len(told[0].warnings) <= 2, "each new count is told once, not every epoch"


def test_a_run_without_faults_says_nothing(shapes_dataset: DatasetSource, experiment: Experiment) -> None:
    listener = Warnings()
    assert train_step(experiment, settings("skip"), listener=listener).skipped_images == ()
    assert listener.warnings == [] == listener.notes


def test_skipped_images_survive_an_interruption(damaged: tuple[Experiment, list[str]]) -> None:
    """Images repaired meanwhile still count: weights were trained without them."""
    experiment, names = damaged
    iterations = -(-experiment.read().step(1).statistics.images // 8)
    with pytest.raises(KeyboardInterrupt):
        train_step(experiment, settings("skip"), listener=Warnings(interrupt_at=2 * iterations))
    source = experiment.folder / experiment.read().train_images()
    for name in names:
        shutil.copy(source / "000000.jpg", source / name)
    with pytest.raises(CheckpointError, match="of 32 images were changed"):
        train_step(experiment, settings("skip"), resume=True)
    accept_changes(experiment)
    listener = Warnings()
    resumed = train_step(experiment, settings("skip"), resume=True, listener=listener)
    assert sorted(resumed.skipped_images) == names
    assert len(listener.notes) == 1 and listener.notes[0].startswith("2 images cannot be loaded")
    assert listener.warnings == []


def test_without_any_image_there_is_nothing_to_train_on(damaged: tuple[Experiment, list[str]]) -> None:
    experiment, _ = damaged
    for image in (experiment.folder / experiment.read().train_images()).iterdir():
        image.write_bytes(b"no image")
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"none of the \d+ images listed in [^\n]*step1\.train\.json can be loaded"):
            train_step(experiment, settings("skip", workers), overwrite=workers > 0)


def test_evaluation_stops_even_when_training_skips(damaged: tuple[Experiment, list[str]]) -> None:
    experiment, _ = damaged
    next(iter((experiment.folder / experiment.read().val_images()).iterdir())).write_bytes(b"no image")
    with pytest.raises(DataError, match="is not an image that can be read"):
        train_step(experiment, settings("skip"))


def test_names_return_from_the_state_in_their_order(tmp_path: Path) -> None:
    names = ("b/ü ö.jpg", "a\nb.jpg", "\udcff.jpg")
    save_state(tmp_path, TrainingState(1, 2.5, names, {"a": {"x": torch.ones(1)}}))
    state = load_state(tmp_path)
    assert (state.epochs_done, state.seconds, state.skipped_images) == (1, 2.5, names)
    assert state.parts == {"a": {"x": torch.ones(1)}}


def test_a_state_of_version_1_keeps_them_as_tensors(tmp_path: Path) -> None:
    names = ("b/ü ö.jpg", "\udcff.jpg")
    tensors = {
        "a/x": torch.ones(1),
        "clock/seconds": torch.tensor(2.5, dtype=torch.float64),
        "skipped/names": torch.frombuffer(bytearray(json.dumps(names).encode()), dtype=torch.uint8),
    }
    path = tmp_path / STATE_FILE
    path.parent.mkdir()
    for expected in (names, ()):
        save_file(tensors, path, metadata={"ciod-state": json.dumps({"epochs_done": 1})})
        state = load_state(tmp_path)
        assert (state.epochs_done, state.seconds, state.skipped_images) == (1, 2.5, expected)
        assert state.parts.keys() == {"a"}
        tensors.pop("skipped/names", None)


def test_names_are_distinct_and_told_in_one_line() -> None:
    skipped = SkippedImages(["b.jpg"])
    assert str(skipped) == "1 image cannot be loaded and is replaced by another: b.jpg"
    skipped.add(["a.jpg", "b.jpg", "a.jpg"])
    assert skipped.names == ("b.jpg", "a.jpg")
    assert str(skipped) == "2 images cannot be loaded and are replaced by others, the first is b.jpg"


def test_a_run_that_a_bad_image_stopped_can_go_on_without_it(damaged: tuple[Experiment, list[str]]) -> None:
    experiment, names = damaged
    folder = experiment.folder / experiment.read().train_images()
    sound = next(path for path in sorted(folder.iterdir()) if path.name not in names)
    for name in names:
        shutil.copy(sound, folder / name)

    class BreakAfterOneEpoch(TrainingListener):
        def record(self, record: TrainingRecord) -> None:
            if record.iteration == record.iterations // 2:
                (folder / names[0]).unlink()

    with pytest.raises(DataError, match="image file is missing"):
        train_step(experiment, settings("stop"), listener=BreakAfterOneEpoch())
    assert experiment.read().run("step1").status == "failed"
    skipping = resolve_config(assignments=["data.corrupt_images=skip", "data.workers=0"])
    run = train_step(experiment, skipping, resume=True)
    assert (run.status, run.config["data"]["corrupt_images"]) == ("finished", "skip")
    assert run.skipped_images == (names[0],)
