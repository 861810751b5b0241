"""Training from a bank: knowledge moves with its image, and stands in for a live teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ciod_core.classes import class_table
from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource
from ciod_core.data.loading.compact import CompactTable
from ciod_core.data.loading.dataset import DetectionDataset
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.mixing import Mixing
from ciod_core.data.loading.transforms import EvalTransform, TrainTransform
from ciod_core.errors import ConfigError
from ciod_core.experiment.folder import Experiment
from ciod_core.methods import build_method
from ciod_core.model.checkpoint import load_detector
from ciod_core.model.knowledge import ImageKnowledge
from ciod_core.runs.spec import plan_run
from ciod_core.runs.train import train_step, training_table
from ciod_core.teachers.asking import Asking
from ciod_core.teachers.bank import KnowledgeBank
from ciod_core.teachers.distil import distil
from ciod_core.teachers.use import BankMemory, from_bank
from tests.cli.conftest import Ciod
from tests.teachers.conftest import widths_of_answers

TINY = {
    "model.name": "yolox-micro",
    "data.image_size": 64,
    "data.workers": 0,
    "training.epochs": 1,
    "training.batch_size": 8,
    "training.device": "cpu",
    # The teacher of a tiny run is sure of nothing; a low threshold makes it speak.
    "resampler.rule": "fixed",
    "resampler.fixed_score": 2e-5,
}


@pytest.mark.parametrize("mixing", [None, Mixing(mosaic=1.0, mixup=1.0)])
def test_knowledge_moves_like_the_boxes_of_its_image(shapes_dataset: DatasetSource, mixing: Mixing | None) -> None:
    """A bank that knows exactly what the labels say gives exactly the labels, whatever is done to the images."""
    table = read_coco(shapes_dataset.train.annotations)
    classes = class_table([[(entry.name, entry.id) for entry in table.categories]])
    compact = CompactTable.of(table, classes, skip_crowd=True)

    def labels_as_knowledge(index: int) -> ImageKnowledge:
        boxes_G4, labels_G = compact.boxes_of(index).copy(), compact.labels_of(index)
        logits = np.eye(len(classes), dtype=np.float32)[labels_G]
        return ImageKnowledge(boxes_G4, labels_G, logits, labels_G.astype(np.float32), labels_G.astype(np.float32))

    dataset = DetectionDataset(
        table,
        shapes_dataset.train.image_dir,
        classes,
        TrainTransform(64, True, True, 0.5),
        seed=5,
        mixing=mixing,
        memory=labels_as_knowledge,
    )
    for batch in make_loader(dataset, 5, shuffle=True, seed=2):
        knowledge, targets = batch.knowledge, batch.targets
        assert knowledge is not None and len(knowledge) == len(targets.labels_N) > 0
        assert torch.equal(knowledge.boxes_K4, targets.boxes_N4)
        assert torch.equal(knowledge.labels_K, targets.labels_N)
        assert torch.equal(knowledge.image_K, targets.image_N)
        assert torch.equal(knowledge.class_logits_KC.argmax(dim=1), targets.labels_N)
        assert torch.equal(knowledge.obj_logits_K.long(), targets.labels_N)
        assert (knowledge.anchor_K == -1).all()


def test_without_a_bank_a_batch_knows_nothing(shapes_dataset: DatasetSource) -> None:
    table = read_coco(shapes_dataset.train.annotations)
    classes = class_table([[(entry.name, entry.id) for entry in table.categories]])
    dataset = DetectionDataset(table, shapes_dataset.train.image_dir, classes, EvalTransform(64))
    assert next(iter(make_loader(dataset, 2, shuffle=False))).knowledge is None


def config(**settings: object) -> Config:
    return resolve_config(flags=TINY | settings)


def test_a_bank_says_what_the_live_teacher_says(experiment: Experiment) -> None:
    """On unchanged images: the same answers, up to the precision that logits are kept in."""
    settings = from_bank(config(**{"resampler.ground_truth_iou": 1.0}))
    bank = distil(experiment, settings, Asking("step1")).bank
    plan = plan_run(experiment, settings, teacher="step1", run="other")
    table, images = training_table(experiment, plan)
    memory = BankMemory.of(bank, table, images)
    dataset = DetectionDataset(
        table, (experiment.folder / experiment.read().train_images()), plan.classes, EvalTransform(64), memory=memory
    )
    teacher, _ = load_detector(experiment.weights_path("step1"))
    method = build_method(settings)
    assert method.recall is not None
    compared = 0
    for batch in make_loader(dataset, 4, shuffle=False):
        with torch.no_grad():
            live = method.select(teacher(batch.images_B3HW), batch.targets)
        assert live is not None and batch.knowledge is not None
        kept = method.recall.agree(batch.knowledge, batch.targets)
        for image in range(len(batch.image_ids_B)):
            ours, theirs = kept.pick(kept.image_K == image), live.pick(live.image_K == image)
            # Boxes in the bank are cut to the image, 64 pixels wide and high; where little is left of one, it goes.
            assert len(ours) <= len(theirs)
            for index in range(len(ours)):
                same_box = (theirs.boxes_K4.clamp(0, 64) - ours.boxes_K4[index]).abs().amax(dim=1) < 0.01
                found = theirs.pick(same_box & (theirs.labels_K == ours.labels_K[index]))
                logits = ours.class_logits_KC[index]
                assert any(torch.allclose(logits, other, atol=0.02, rtol=0.01) for other in found.class_logits_KC)
                compared += 1
    assert compared > 20


def test_no_teacher_runs_and_the_record_names_the_bank(
    ciod: Ciod, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(**{"distiller.background": "teacher"})
    bank = distil(experiment, settings, Asking("step1")).bank
    widths = widths_of_answers(monkeypatch)
    run = train_step(experiment, settings, teacher="step1", run="from-bank", knowledge=bank.path)
    assert widths == {8}, "a teacher of five classes answered"
    assert run.inputs["knowledge"].path == bank.path.name
    assert run.config["distiller"]["background"] == "zero"
    assert experiment.read().run("from-bank").status == "finished"


@pytest.mark.parametrize("method", ["crs-ckd", "pseudo-label"])
def test_methods_that_learn_from_selected_answers_can(method: str, experiment: Experiment) -> None:
    settings = config(**{"method.name": method})
    bank = distil(experiment, settings, Asking("step1")).bank
    run = train_step(experiment, settings, teacher="step1", run="from-bank", knowledge=bank.path)
    assert run.status == "finished" and "knowledge" in run.inputs


@pytest.mark.parametrize("method", ["lwf", "erd", "sid", "rilod", "finetune", "frozen-branch"])
def test_other_methods_say_so(method: str, experiment: Experiment) -> None:
    settings = config(**{"method.name": method})
    with pytest.raises(ConfigError, match=f"'{method}' cannot learn from a bank"):
        distil(experiment, settings, Asking("step1"))
    bank = distil(experiment, config(), Asking("step1")).bank
    with pytest.raises(ConfigError, match=f"--knowledge: '{method}' asks a teacher for more"):
        train_step(experiment, settings, teacher="step1", run="other", knowledge=bank.path)
    assert experiment.read().run("other") is None


def test_a_bank_that_does_not_fit(experiment: Experiment) -> None:
    bank = distil(experiment, config(), Asking("step1")).bank

    def train(**settings: object) -> None:
        train_step(experiment, config(**settings), teacher="step1", run="other", knowledge=bank.path)

    with pytest.raises(ConfigError, match=r"its resampler\.fixed_score is 2e-05, not 0\.1; run 'ciod distill'"):
        train(**{"resampler.fixed_score": 0.1})
    with pytest.raises(ConfigError, match="not those that are replayed"):
        train(**{"replay.images": 3})
    with pytest.raises(ConfigError, match="a run without a teacher"):
        train_step(experiment, config(), run="other", knowledge=bank.path)
    image = (experiment.folder / experiment.read().train_images()) / str(
        read_coco(experiment.read().train_file(2).locate(experiment.folder)).file_names_I[0]
    )
    before = image.read_bytes()
    try:
        image.write_bytes(before + b"\0")
        with pytest.raises(ConfigError, match=r": 1 of \d+ images are not in it; run 'ciod distill' again"):
            train()
    finally:
        image.write_bytes(before)
    assert experiment.read().run("other") is None


def test_the_command(ciod: Ciod, own_copy: Path) -> None:
    sets = [part for key in ("resampler.rule", "resampler.fixed_score") for part in ("--set", f"{key}={TINY[key]}")]
    assert ciod("distill", "--experiment", own_copy, "--teacher", "step1", "--workers", "0", *sets).code == 0
    bank = own_copy / "step2.knowledge.safetensors"
    answer = ciod(
        "train-step", "--experiment", own_copy, "--teacher", "step1", "--knowledge", bank, "--name", "banked",
        "--epochs", "1", "--workers", "0", "--device", "cpu", *sets, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "learns from step2.knowledge.safetensors instead of asking the teacher" in answer.err
    assert json.loads(answer.out)["inputs"]["knowledge"]["bytes"] == bank.stat().st_size
    missing = ciod(
        "train-step",
        "--experiment",
        own_copy,
        "--teacher",
        "step1",
        "--name",
        "other",
        "--knowledge",
        own_copy / "none",
    )
    assert missing.code == 4 and "does not exist; pass a bank that 'ciod distill' wrote" in missing.error_line


def test_a_memory_is_small_and_can_be_sent_to_workers(experiment: Experiment) -> None:
    bank = distil(experiment, config(), Asking("step1")).bank
    table = read_coco(experiment.read().train_file(2).locate(experiment.folder))
    memory = BankMemory.of(KnowledgeBank(bank.path), table, (experiment.folder / experiment.read().train_images()))
    dataset = DetectionDataset(
        table,
        (experiment.folder / experiment.read().train_images()),
        experiment.read().classes,
        TrainTransform(64),
        memory=memory,
    )
    alone = [batch.knowledge for batch in make_loader(dataset, 6, shuffle=True)]
    spread = [batch.knowledge for batch in make_loader(dataset, 6, shuffle=True, workers=2)]
    for first, second in zip(alone, spread, strict=True):
        assert first is not None and second is not None
        for name, tensor in vars(first).items():
            assert torch.equal(tensor, getattr(second, name))
    assert replace(memory(0)).labels_K.dtype == np.int64
