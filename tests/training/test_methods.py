"""Every rival trains a real step; the frozen branch keeps the old answers bit for bit and teaches a further step."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch

from ciod_core.config.schema import ResamplerConfig
from ciod_core.data.formats.source import DatasetSource
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import WEIGHTS_KEY, Experiment
from ciod_core.export.description import InputFormat, NmsSettings
from ciod_core.export.graph import build_graph, capture
from ciod_core.files import sha256_of_file
from ciod_core.methods.erd import ErdConfig
from ciod_core.model.base import PRESENCE, Detector
from ciod_core.model.checkpoint import load_detector, read_info
from ciod_core.runs.train import train_step
from tests.helpers.listeners import StopInEpoch2
from tests.helpers.logs import losses_logged
from tests.training.conftest import tiny_config

LOSSES = {
    "lwf": {"new absent", "old class"},
    "rilod": {"new absent", "old class", "old box", "old feature"},
    "sid": {"new absent", "old class", "old feature", "old relation"},
    "erd": {"new absent", "old class", "old box"},
    "frozen-branch": set[str](),
}


@pytest.fixture(scope="module")
def base_folder(shapes_dataset: DatasetSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps, 4 + 2 + 2 classes, the first one trained; read only."""
    folder = tmp_path_factory.mktemp("base") / "experiment"
    create_experiment(shapes_dataset, "4+2x2", "name", folder)
    train_step(Experiment.open(folder), tiny_config(epochs=1))
    return folder


@pytest.fixture(scope="module")
def branched_folder(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with step 2 trained as a frozen branch; read only."""
    folder = Path(shutil.copytree(base_folder, tmp_path_factory.mktemp("branched") / "experiment"))
    train_step(Experiment.open(folder), tiny_config("frozen-branch"), teacher="step1")
    return folder


def own(folder: Path, tmp_path: Path) -> Experiment:
    return Experiment.open(Path(shutil.copytree(folder, tmp_path / "experiment")))


def detector_of(experiment: Experiment, run: str) -> Detector:
    return load_detector(experiment.weights_path(run))[0]


@torch.inference_mode()
def assert_old_answers_kept(student: Detector, teacher: Detector) -> None:
    """Logits, responses and boxes of the teacher's anchor points and classes, bit for bit."""
    images = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    ours, theirs = student(images), teacher(images)
    num_anchors, num_classes = theirs.class_logits_BAC.shape[1:]
    assert torch.equal(ours.class_logits_BAC[:, :num_anchors, :num_classes], theirs.class_logits_BAC)
    assert theirs.responses().keys() == {PRESENCE}
    assert torch.equal(ours.responses()[PRESENCE][:, :num_anchors], theirs.responses()[PRESENCE])
    assert torch.equal(ours.boxes_BA4[:, :num_anchors], theirs.boxes_BA4)
    assert ours.class_logits_BAC.shape[1] > num_anchors


@pytest.mark.parametrize("method", LOSSES)
def test_a_real_step(method: str, base_folder: Path, tmp_path: Path) -> None:
    experiment = own(base_folder, tmp_path)
    teacher_before = sha256_of_file(experiment.weights_path("step1"))
    # A teacher of one epoch is sure of nothing; what stands out a little has to do.
    config = tiny_config(method, epochs=1, log_interval=1).model_copy(
        update={
            "resampler": ResamplerConfig(rule="global-stat", global_std=1.0, min_score=0.0),
            "erd": ErdConfig(num_std=1.0),
        }
    )
    run = train_step(experiment, config, teacher="step1")
    assert (run.name, run.method, run.status) == (f"step2-{method}", method, "finished")
    assert sha256_of_file(experiment.weights_path("step1")) == teacher_before
    records = losses_logged(experiment, run)
    for record in records:
        assert record.keys() == {"loss", "objectness", "class", "box"} | LOSSES[method]
        assert all(math.isfinite(value) for value in record.values())
    # The student starts as its teacher; from its first update on they differ.
    assert all(records[-1][name] > 0 for name in LOSSES[method])
    assert len(read_info(experiment.weights_path(run.name)).classes) == 6


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_frozen_branch_keeps_old_answers_bit_for_bit(precision: str, base_folder: Path, tmp_path: Path) -> None:
    experiment = own(base_folder, tmp_path)
    config = tiny_config("frozen-branch", precision=precision, channels_last=True, weight_decay=0.1)
    run = train_step(experiment, config, teacher="step1")
    info = read_info(experiment.weights_path(run.name))
    assert info.head_classes == (4, 2)
    assert_old_answers_kept(detector_of(experiment, run.name), detector_of(experiment, "step1"))


def test_a_frozen_branch_resumed_equals_uninterrupted(branched_folder: Path, tmp_path: Path) -> None:
    experiment = own(branched_folder, tmp_path)
    config = tiny_config("frozen-branch")
    with pytest.raises(KeyboardInterrupt):
        train_step(experiment, config, teacher="step1", run="again", listener=StopInEpoch2())
    resumed = train_step(experiment, config, teacher="step1", run="again", resume=True)
    whole = experiment.read().run("step2-frozen-branch")
    assert resumed.metrics == whole.metrics
    ours, theirs = (detector_of(experiment, name).state_dict() for name in ("again", whole.name))
    assert ours.keys() == theirs.keys()
    assert [name for name, tensor in theirs.items() if not torch.equal(tensor, ours[name])] == []


def test_branches_chain(branched_folder: Path, tmp_path: Path) -> None:
    experiment = own(branched_folder, tmp_path)
    teacher = "step2-frozen-branch"
    run = train_step(experiment, tiny_config("frozen-branch", epochs=1), teacher=teacher, run="third")
    assert read_info(experiment.weights_path("third")).head_classes == (4, 2, 2)
    assert run.inputs["teacher"].sha256 == experiment.read().run(teacher).outputs[WEIGHTS_KEY].sha256
    assert_old_answers_kept(detector_of(experiment, "third"), detector_of(experiment, teacher))


@pytest.mark.parametrize("method", ["crs-ckd", "erd", "sid"])
def test_a_teacher_with_branches_teaches_other_methods(method: str, branched_folder: Path, tmp_path: Path) -> None:
    experiment = own(branched_folder, tmp_path)
    config = tiny_config(method, epochs=1, log_interval=1)
    run = train_step(experiment, config, teacher="step2-frozen-branch", run="third")
    assert read_info(experiment.weights_path("third")).head_classes == (4, 4)
    # A class that an anchor point cannot name would cost thousands wherever it were asked for.
    assert all(record["loss"] < 1000 for record in losses_logged(experiment, run))
    student, teacher = detector_of(experiment, "third"), detector_of(experiment, "step2-frozen-branch")
    name = "head.levels.0.stem.0.weight"
    assert not torch.equal(student.state_dict()[name], teacher.state_dict()[name])


def test_a_detector_with_branches_is_captured_for_export(branched_folder: Path) -> None:
    """ONNX and pt2 files are both made from the captured graph."""
    detector = detector_of(Experiment.open(branched_folder), "step2-frozen-branch").requires_grad_(False)
    graph = build_graph(detector, (1, 2, 3, 4, 5, 6), NmsSettings(score_threshold=0.0001))
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        expected, found = graph(images), capture(graph, InputFormat(image_size=64)).module()(images)
    assert (expected[1] > 0).any()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
