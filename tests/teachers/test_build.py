"""Making a bank: the teacher runs once on every image, and its boxes lie in the image's own frame."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ciod_core.classes import ClassTable, class_table
from ciod_core.config.schema import Config, ResamplerConfig
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource
from ciod_core.data.images.hashes import ImageHashes
from ciod_core.data.loading.transforms import EvalTransform
from ciod_core.errors import ConfigError, DataError
from ciod_core.methods.registry import build_method
from ciod_core.model.common.boxes import pairwise_iou
from ciod_core.model.yolox.detector import YoloxDetector
from ciod_core.teachers import distill as distill_module
from ciod_core.teachers.bank import KnowledgeBank
from ciod_core.teachers.base import TeacherIdentity
from ciod_core.teachers.distill import Built, build_bank
from ciod_core.teachers.network import NetworkTeacher
from ciod_core.teachers.report import StepBank, summarize
from tests.helpers.networks import lively_detector

IDENTITY = TeacherIdentity(
    teacher_sha256="ab" * 32,
    classes=("a", "b", "c"),
    image_size=64,
    # An untrained teacher is sure of nothing; a low threshold makes it select boxes.
    resampler=ResamplerConfig(rule="fixed", fixed_score=0.02, nms_iou=0.65),
)


class Setting:
    """A few images in a folder of their own, a teacher, and a bank beside them."""

    def __init__(self, source: DatasetSource, folder: Path) -> None:
        self.folder = folder
        self.images = Path(shutil.copytree(source.train.image_dir, folder / "images"))
        whole = read_coco(source.train.annotations)
        first_I = np.arange(whole.num_images) < 6
        self.table = whole.select(np.ones(whole.num_boxes, dtype=np.bool_), first_I)
        self.detector = lively_detector(num_classes=3, seed=4).eval()
        self.classes = class_table([[(entry.name, entry.id) for entry in whole.categories[:3]]])
        self.done: list[int] = []

    def teacher(self, identity: TeacherIdentity = IDENTITY, table: AnnotationTable | None = None) -> NetworkTeacher:
        method = build_method(Config(resampler=identity.resampler))
        images = LocatedTable(table or self.table, self.images)
        return NetworkTeacher(self.detector, method, identity, images, batch_size=2)

    def build(
        self, identity: TeacherIdentity = IDENTITY, table: AnnotationTable | None = None, *, overwrite: bool = False
    ) -> Built:
        path, teacher = self.folder / "bank.safetensors", self.teacher(identity, table)
        return build_bank(path, teacher, ImageHashes(), overwrite=overwrite, on_images=self.done.append)


@pytest.fixture
def setting(shapes_dataset: DatasetSource, tmp_path: Path) -> Setting:
    return Setting(shapes_dataset, tmp_path)


def test_the_teacher_runs_once_on_every_image(setting: Setting) -> None:
    built = setting.build()
    assert built.num_new == 6 and sum(setting.done) == 6
    bank = built.teacher.bank
    assert len(bank) == 6 and sum(len(kept) for _, kept in bank.items()) > 6
    again = setting.build()
    assert again.num_new == 0 and sum(setting.done) == 6


def test_answers_lie_in_the_image(setting: Setting) -> None:
    built = setting.build()
    for row in range(setting.table.num_images):
        kept = built.teacher.knowledge_of(row)
        width, height = int(setting.table.widths_I[row]), int(setting.table.heights_I[row])
        assert (kept.boxes_K4 >= 0).all()
        assert (kept.boxes_K4 <= torch.tensor([width, height, width, height]) + 1e-3).all()
        assert (kept.boxes_K4[:, 2:] > kept.boxes_K4[:, :2]).all()
        assert (kept.scores_K >= 0.02).all()


def test_only_new_and_changed_images_are_asked_about(setting: Setting) -> None:
    first_I = np.arange(setting.table.num_images) < 4
    setting.build(table=setting.table.select(np.ones(setting.table.num_boxes, dtype=np.bool_), first_I))
    assert setting.build().num_new == 2
    path = setting.images / str(setting.table.file_names_I[0])
    path.write_bytes(path.read_bytes() + b"\0")
    assert setting.build().num_new == 1


def test_a_renamed_image_is_known(setting: Setting) -> None:
    setting.build()
    one_I = np.arange(setting.table.num_images) == 1
    table = setting.table.select(np.ones(setting.table.num_boxes, dtype=np.bool_), one_I)
    old, new = (setting.images / name for name in (str(setting.table.file_names_I[0]), str(table.file_names_I[0])))
    new.write_bytes(old.read_bytes())
    assert setting.build(table=table).num_new == 0


def test_an_interrupted_call_goes_on(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill_module, "SECONDS_BETWEEN_WRITES", 0.0)
    forward, calls = YoloxDetector.forward, 0

    def interrupted(self: YoloxDetector, *arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return forward(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(YoloxDetector, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        setting.build()
    assert len(KnowledgeBank(setting.folder / "bank.safetensors")) == 4
    assert setting.build().num_new == 2


def test_other_knowledge_is_not_mixed_in(setting: Setting) -> None:
    setting.build()
    other = IDENTITY.model_copy(update={"teacher_sha256": "cd" * 32})
    with pytest.raises(ConfigError, match=r"a bank is there whose teacher_sha256 is abab.*`overwrite`"):
        setting.build(other)
    assert setting.build(other, overwrite=True).num_new == 6
    assert KnowledgeBank(setting.folder / "bank.safetensors").identity == other


def test_a_missing_image(setting: Setting) -> None:
    (setting.images / str(setting.table.file_names_I[2])).unlink()
    with pytest.raises(DataError, match=r"cannot be read \(No such file or directory\); restore it"):
        setting.build()
    assert not (setting.folder / "bank.safetensors").exists()


def test_the_mirrored_view_comes_back_into_the_images_frame(setting: Setting) -> None:
    """A network that sees mirrored images mirrored again gives the same boxes as for the images."""
    plain = next(iter(setting.teacher().annotate([0])))
    forward = YoloxDetector.forward

    def mirrored(self: YoloxDetector, images_B3HW: torch.Tensor, **options: object) -> object:
        output = forward(self, images_B3HW.flip(3), **options)  # type: ignore[arg-type]
        boxes = output.boxes_BA4.clone()
        boxes[..., 0], boxes[..., 2] = 64 - output.boxes_BA4[..., 2], 64 - output.boxes_BA4[..., 0]
        return replace(output, boxes_BA4=boxes)

    teacher = setting.teacher()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(YoloxDetector, "forward", mirrored)
        (flipped,) = teacher._view(
            LocatedTable(first_image(setting.table), setting.images), EvalTransform(64, flip=True)
        )
    assert len(plain) > 0
    np.testing.assert_allclose(plain.boxes_K4, flipped.boxes_K4, atol=0.1)


def first_image(table: AnnotationTable) -> AnnotationTable:
    return table.select(np.zeros(table.num_boxes, dtype=np.bool_), np.arange(table.num_images) < 1)


def test_averaging_keeps_the_boxes_and_changes_their_logits(setting: Setting) -> None:
    plain = dict(setting.build().teacher.bank.items())
    identity = IDENTITY.model_copy(update={"flip": True, "scales": (1.5,)})
    averaged = dict(setting.build(identity, overwrite=True).teacher.bank.items())
    assert {key: len(kept) for key, kept in averaged.items()} == {key: len(kept) for key, kept in plain.items()}
    assert not all(torch.allclose(averaged[key].class_logits_KC, plain[key].class_logits_KC) for key in plain)


def test_recall_and_precision_against_hidden_labels(setting: Setting) -> None:
    """Counted again in plain loops."""
    built = setting.build()
    bank = StepBank(built.teacher, 2, setting.classes, built.num_new, hidden=setting.table)
    summary = summarize(bank)
    found, boxes = plain_matches(built, setting.table, setting.classes)
    assert [entry.found for entry in summary.per_class] == found
    assert [entry.hidden_boxes for entry in summary.per_class] == boxes
    assert sum(entry.answers for entry in summary.per_class) == sum(summary.histogram)
    assert sum(summary.histogram) == sum(len(kept) for _, kept in built.teacher.bank.items())
    blind = summarize(replace(bank, hidden=None))
    assert all(entry.recall is None and entry.precision is None for entry in (*blind.per_class, blind.total))


def plain_matches(built: Built, table: AnnotationTable, classes: ClassTable) -> tuple[list[int], list[int]]:
    found, boxes = [0] * len(classes), [0] * len(classes)
    for row in range(table.num_images):
        kept = built.teacher.knowledge_of(row)
        rows = range(int(table.offsets[row]), int(table.offsets[row + 1]))
        for label, category_id in enumerate(classes.category_ids):
            free = [index for index in rows if table.category_ids_N[index] == category_id]
            boxes[label] += len(free)
            mine = [index for index in range(len(kept)) if kept.labels_K[index] == label]
            for answer in sorted(mine, key=lambda index: -float(kept.scores_K[index])):
                overlaps = [
                    float(pairwise_iou(kept.boxes_K4[[answer]], torch.from_numpy(table.boxes_N4[[index]])))
                    for index in free
                ]
                if overlaps and max(overlaps) >= 0.5:
                    free.pop(overlaps.index(max(overlaps)))
                    found[label] += 1
    return found, boxes
