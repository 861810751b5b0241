"""One network again: what it starts from, what teaches it, and what is recorded."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ciod_core.config.schema import Config, ResamplerConfig
from ciod_core.data.formats.source import DatasetSource
from ciod_core.errors import ConfigError
from ciod_core.evaluation.chain import chain_to
from ciod_core.experiment.folder import Experiment
from ciod_core.methods.consolidation import Consolidation, ConsolidationConfig
from ciod_core.model.checkpoint import Source, load_detector, read_info, save_detector
from ciod_core.runs.consolidate import LEARNING_RATE, consolidate
from ciod_core.runs.train import train_step
from tests.helpers.listeners import StopInEpoch2
from tests.helpers.networks import lively, lively_detector
from tests.helpers.scenes import make_targets
from tests.training.conftest import tiny_config


@pytest.fixture(scope="module")
def branched_folder(taught_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the second step trained as a branch; read only."""
    folder = Path(shutil.copytree(taught_folder, tmp_path_factory.mktemp("branched") / "experiment"))
    train_step(Experiment.open(folder), tiny_config("frozen-branch", epochs=1), teacher="step1", run="step2")
    return folder


@pytest.fixture
def experiment(branched_folder: Path, tmp_path: Path) -> Experiment:
    return Experiment.open(Path(shutil.copytree(branched_folder, tmp_path / "experiment")))


def config(unlabeled: Path | None = None, **training: Any) -> Config:
    tiny = tiny_config(**training)
    return tiny.model_copy(
        update={"data": tiny.data.model_copy(update={"unlabeled": str(unlabeled) if unlabeled else None})}
    )


def test_the_student_starts_as_the_old_path_and_labels_teach_class_and_box_alone() -> None:
    teacher = lively_detector(num_classes=3)
    teacher.add_branch(2, "neck")
    teacher.branches[0].load_state_dict(lively_detector(num_classes=2, seed=9).head.state_dict())
    student = lively_detector(num_classes=3)
    student.add_branch(2, "neck")
    method = Consolidation(ConsolidationConfig(), ResamplerConfig())
    method.grow(student, 2)
    assert student.head_classes == (5,) and student.branch_depths == ()
    assert all(parameter.requires_grad for parameter in student.parameters())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        dense = teacher.eval()(images)
    knowledge = replace(method.select(dense), dense=dense)
    losses = method.losses(student, student.train()(images), make_targets([(0, (4.0, 4.0, 40.0, 40.0), 4)]), knowledge)
    assert list(losses) == ["class", "box", "old objectness", "old class", "old box"]
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    same = method.losses(student, dense.merged(), make_targets([]), knowledge)
    assert [same[name].item() for name in ("old objectness", "old class", "old box")] == pytest.approx(
        [0, 0, 0], abs=1e-2
    )


@pytest.mark.parametrize("family", ["yolox-micro", "gfl-micro"])
def test_the_head_decays_toward_the_teachers_and_new_classes_are_free(family: str) -> None:
    teacher, student = lively(family, num_classes=3), lively(family, num_classes=3)
    student.add_branch(2, "neck")
    method = Consolidation(ConsolidationConfig(head_decay=20.0), ResamplerConfig())
    method.grow(student, 2)
    taught, grown = dict(teacher.named_parameters()), dict(student.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in grown.items()}
    with torch.no_grad():
        for parameter in grown.values():
            parameter += 1.0
    method.after_update(student, 1e-3)
    head = student.head_parameters()
    for name, parameter in grown.items():
        kept = torch.full_like(parameter, 1 - 1e-3 * 20.0)
        if name not in head:
            kept.fill_(1.0)
        elif parameter.shape != taught[name].shape:
            kept[3:] = 1.0
        torch.testing.assert_close(parameter - before[name], kept, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("with_photos", [False, True])
def test_a_run(with_photos: bool, experiment: Experiment, shapes_dataset: DatasetSource, tmp_path: Path) -> None:
    photos = None
    if with_photos:
        photos = tmp_path / "photos"
        shutil.copytree(shapes_dataset.val.image_dir, photos)
    before = load_detector(experiment.weights_path("step2"))[0].state_dict()
    run = consolidate(experiment, config(photos, epochs=1), teacher="step2")
    assert (run.name, run.kind, run.method, run.parent, run.status) == (
        "step2-one", "distilled", "consolidate", "step2", "finished",
    )  # fmt: skip
    assert "train" in run.inputs
    detector, info = load_detector(experiment.weights_path("step2-one"))
    assert (info.head_classes, info.branch_depths) == ((8,), ())
    assert info.classes == read_info(experiment.weights_path("step2")).classes
    moved = {
        name.split(".")[0]
        for name, tensor in detector.state_dict().items()
        if "cls_conv" not in name and not torch.equal(tensor, before[name])
    }
    assert moved == ({"backbone", "neck", "head"} if with_photos else {"neck", "head"})
    assert not any("running" in name and not torch.equal(tensor, before[name]) for name, tensor in _buffers(detector))
    chain = chain_to(experiment, run)
    assert chain is not None and chain.runs == ("step1", "step2-one")


def test_a_run_holds_head_and_trunk_as_it_is_set(experiment: Experiment) -> None:
    before = load_detector(experiment.weights_path("step2"))[0].state_dict()
    held = Config.model_validate(dict(config(epochs=1)) | {"consolidation": {"head_decay": 1e9, "trunk_rate": 0.0}})
    run = consolidate(experiment, held, teacher="step2")
    assert run.config["consolidation"] == {"head_decay": 1e9, "trunk_rate": 0.0}
    after = load_detector(experiment.weights_path("step2-one"))[0].state_dict()
    kept = {name: tensor for name, tensor in after.items() if tensor.ndim}
    assert {name.split(".")[0] for name in kept} >= {"backbone", "neck", "head"}
    assert all(torch.equal(tensor[: len(before[name])], before[name]) for name, tensor in kept.items())
    rows = [tensor for name, tensor in after.items() if name.endswith("cls_conv.weight")]
    assert all(row.shape[0] == 8 for row in rows) and rows


def test_imported_weights_are_held_unless_set_otherwise(experiment: Experiment) -> None:
    detector, info = load_detector(experiment.weights_path("step2"))
    imported = info.model_copy(update={"source": Source(file="x.pth", sha256="0" * 64)})
    path = experiment.folder / "imported.safetensors"
    save_detector(path, detector.state_dict(), imported)

    def settings(teacher: str | Path, **given: float) -> dict[str, float]:
        values = Config.model_validate(dict(config(epochs=1)) | {"consolidation": given})
        return dict(consolidate(experiment, values, teacher=teacher, run="one", overwrite=True).config["consolidation"])

    assert settings(path) == {"trunk_rate": 0.04, "head_decay": 50.0}
    assert settings(path, trunk_rate=0.2) == {"trunk_rate": 0.2, "head_decay": 50.0}
    assert settings("step2") == dict(ConsolidationConfig())


def _buffers(detector: torch.nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, tensor) for name, tensor in detector.named_buffers() if "num_batches" not in name]


def test_the_learning_rate_is_its_own_unless_set(experiment: Experiment) -> None:
    plain = Config.model_validate({"training": {"epochs": 1, "batch_size": 8, "device": "cpu"}, "data": {"workers": 0}})
    run = consolidate(experiment, plain, teacher="step2")
    assert run.config["training"]["lr"] == LEARNING_RATE
    assert run.config["data"]["image_size"] == 64


def test_resumed_equals_uninterrupted(experiment: Experiment) -> None:
    consolidate(experiment, config(epochs=2), teacher="step2", run="whole")
    with pytest.raises(KeyboardInterrupt):
        consolidate(experiment, config(epochs=2), teacher="step2", listener=StopInEpoch2())
    consolidate(experiment, config(epochs=2), teacher="step2", resume=True)
    ours, theirs = (load_detector(experiment.weights_path(name))[0].state_dict() for name in ("step2-one", "whole"))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_mistakes(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match="it has no branches"):
        consolidate(experiment, config(), teacher="step1")
    consolidate(experiment, config(epochs=1), teacher="step2")
    with pytest.raises(ConfigError, match="exists already"):
        consolidate(experiment, config(epochs=1), teacher="step2")
