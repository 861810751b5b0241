"""Training from a bank: knowledge moves with its image, and stands in for a live teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ciod_core.classes import ClassTable, class_table
from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config, ResamplerConfig
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource
from ciod_core.data.images.hashes import ImageHashes
from ciod_core.data.loading.dataset import DetectionDataset
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.mixing import Mixing
from ciod_core.data.loading.transforms import EvalTransform, TrainTransform
from ciod_core.errors import ConfigError
from ciod_core.experiment.folder import Experiment
from ciod_core.methods.registry import build_method
from ciod_core.model.checkpoint import load_detector
from ciod_core.model.knowledge import Knowledge
from ciod_core.runs.spec import plan_run
from ciod_core.runs.train import train_step, training_table
from ciod_core.teachers import bank as bank_module
from ciod_core.teachers.bank import BankTeacher, KnowledgeBank, write_bank
from ciod_core.teachers.base import SourceFrameTeacher, TeacherIdentity
from ciod_core.teachers.distill import distill
from ciod_core.teachers.sources import TeacherOptions
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


class LabelsAsTeacher(SourceFrameTeacher):
    """A teacher that knows exactly the labels."""

    def __init__(self, images: LocatedTable, classes: ClassTable) -> None:
        identity = TeacherIdentity(teacher_sha256="", classes=(), image_size=0, resampler=ResamplerConfig())
        super().__init__(identity, images)
        self._classes = classes

    def knowledge_of(self, index: int) -> Knowledge:
        table = self.images.table
        of_image_N = (table.image_of_box_N == index) & ~table.crowd_N
        labels_G = torch.from_numpy(self._classes.labels_of(table.category_ids_N[of_image_N]))
        return Knowledge(
            boxes_K4=torch.from_numpy(table.boxes_N4[of_image_N]),
            labels_K=labels_G,
            scores_K=labels_G.float(),
            class_logits_KC=torch.eye(len(self._classes))[labels_G],
            responses={"objectness": labels_G.float()},
            image_K=torch.zeros_like(labels_G),
            anchor_K=torch.full_like(labels_G, -1),
        )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mixing", [None, Mixing(mosaic=1.0, mixup=1.0)])
def test_knowledge_moves_like_the_boxes_of_its_image(
    shapes_dataset: DatasetSource, mixing: Mixing | None, workers: int
) -> None:
    """A teacher that knows exactly the labels gives exactly the labels, whatever is done to the images."""
    table = read_coco(shapes_dataset.train.annotations)
    classes = class_table([[(entry.name, entry.id) for entry in table.categories]])
    images = LocatedTable(table, shapes_dataset.train.image_dir)
    teacher = LabelsAsTeacher(images, classes)
    dataset = DetectionDataset(*images, classes, TrainTransform(64, True, True, 0.5), seed=5, mixing=mixing)
    for batch in make_loader(dataset, 5, shuffle=True, seed=2, workers=workers):
        knowledge, targets = teacher.answer(batch), batch.targets
        assert len(knowledge) == len(targets.labels_N) > 0
        assert torch.equal(knowledge.boxes_K4, targets.boxes_N4)
        assert torch.equal(knowledge.labels_K, targets.labels_N)
        assert torch.equal(knowledge.image_K, targets.image_N)
        assert torch.equal(knowledge.class_logits_KC.argmax(dim=1), targets.labels_N)
        assert torch.equal(knowledge.responses["objectness"].long(), targets.labels_N)
        assert (knowledge.anchor_K == -1).all()


def config(**settings: object) -> Config:
    return resolve_config(flags=TINY | settings)


def test_a_bank_says_what_the_live_teacher_says(experiment: Experiment) -> None:
    """On unchanged images: the same answers, up to the precision that logits are kept in."""
    settings = config(**{"resampler.ground_truth_iou": 1.0, "distiller.background": "zero"})
    bank = distill(experiment, settings, TeacherOptions("step1")).teacher
    plan = plan_run(experiment, settings, teacher="step1", run="other")
    dataset = DetectionDataset(*training_table(experiment, plan), plan.classes, EvalTransform(64))
    detector, _ = load_detector(experiment.weights_path("step1"))
    method = build_method(settings)
    compared = 0
    for batch in make_loader(dataset, 4, shuffle=False):
        with torch.no_grad():
            live = method.reconcile(method.select(detector(batch.images_B3HW)), batch.targets)
        kept = method.reconcile(bank.answer(batch), batch.targets)
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
    bank = distill(experiment, settings, TeacherOptions("step1")).teacher.bank
    widths = widths_of_answers(monkeypatch)
    run = train_step(experiment, settings, teacher="step1", run="from-bank", knowledge=bank.path)
    assert widths == {8}, "a teacher of five classes answered"
    assert run.inputs["knowledge"].path == bank.path.name
    assert run.config["distiller"]["background"] == "zero"
    assert experiment.read().run("from-bank").status == "finished"


@pytest.mark.parametrize("method", ["crs-ckd", "pseudo-label"])
def test_methods_that_learn_from_selected_answers_can(method: str, experiment: Experiment) -> None:
    settings = config(**{"method.name": method})
    bank = distill(experiment, settings, TeacherOptions("step1")).teacher.bank
    run = train_step(experiment, settings, teacher="step1", run="from-bank", knowledge=bank.path)
    assert run.status == "finished" and "knowledge" in run.inputs


@pytest.mark.parametrize("method", ["lwf", "erd", "sid", "rilod", "finetune", "frozen-branch"])
def test_other_methods_say_so(method: str, experiment: Experiment) -> None:
    settings = config(**{"method.name": method})
    with pytest.raises(ConfigError, match=f"'{method}' cannot learn from a bank"):
        distill(experiment, settings, TeacherOptions("step1"))
    bank = distill(experiment, config(), TeacherOptions("step1")).teacher.bank
    with pytest.raises(ConfigError, match=f"`knowledge`: method '{method}' needs the live teacher or none"):
        train_step(experiment, settings, teacher="step1", run="other", knowledge=bank.path)
    assert experiment.read().find_run("other") is None


def test_a_bank_that_does_not_fit(experiment: Experiment) -> None:
    bank = distill(experiment, config(), TeacherOptions("step1")).teacher.bank

    def train(**settings: object) -> None:
        train_step(experiment, config(**settings), teacher="step1", run="other", knowledge=bank.path)

    with pytest.raises(ConfigError, match=r"its resampler\.fixed_score is 2e-05, not 0\.1; run 'ciod distill'"):
        train(**{"resampler.fixed_score": 0.1})
    with pytest.raises(ConfigError, match="not replayed ones"):
        train(**{"replay.images": 3})
    with pytest.raises(ConfigError, match="`knowledge`: requires `teacher`"):
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
    assert experiment.read().find_run("other") is None


def test_the_command(ciod: Ciod, own_copy: Path) -> None:
    sets = [part for key in ("resampler.rule", "resampler.fixed_score") for part in ("--set", f"{key}={TINY[key]}")]
    assert ciod("distill", "--experiment", own_copy, "--teacher", "step1", "--workers", "0", *sets).code == 0
    bank = own_copy / "step2.knowledge.safetensors"
    answer = ciod(
        "train-step", "--experiment", own_copy, "--teacher", "step1", "--knowledge", bank, "--name", "banked",
        "--epochs", "1", "--workers", "0", "--device", "cpu", *sets, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "learns from step2.knowledge.safetensors instead of the live teacher" in answer.err
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


def test_images_are_hashed_when_they_are_trained_on_where_there_are_many(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that the bank lacks is met then; one whose hash is cached is refused at once."""
    made = distill(experiment, config(), TeacherOptions("step1")).teacher
    known = dict(made.bank.items())
    sha256, image = next(
        (sha256, index)
        for index, name in enumerate(made.images.table.file_names_I.tolist())
        for sha256 in [ImageHashes().get(made.images[1] / name)]
    )
    known.pop(sha256)
    write_bank(made.bank.path, made.identity, known)
    monkeypatch.setattr(bank_module, "HASHED_AHEAD", 0)
    hashes = ImageHashes()
    teacher = BankTeacher(KnowledgeBank(made.bank.path), made.images, hashes)
    teacher.require_images()
    dataset = DetectionDataset(*made.images, experiment.read().classes, EvalTransform(64))
    with pytest.raises(ConfigError, match=r"is not in it; run 'ciod distill' again"):
        teacher.answer(next(iter(make_loader(dataset, image + 1, shuffle=False))))
    monkeypatch.setattr("ciod_core.data.images.hashes.SETTLED_NS", -1)
    hashes.get(made.images[1] / str(made.images.table.file_names_I[image]))
    with pytest.raises(ConfigError, match=r": 1 of \d+ images are not in it"):
        teacher.require_images()
