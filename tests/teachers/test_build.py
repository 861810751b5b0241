"""Making a bank: the teacher is asked once about every image, and its answers lie in the image's own frame."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ciod_core.bank import build
from ciod_core.classes import ClassTable, class_table
from ciod_core.config.schema import ResamplerConfig
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource
from ciod_core.errors import ConfigError, DataError
from ciod_core.model.common.boxes import pairwise_iou
from ciod_core.model.yolox.detector import Detector
from ciod_core.teachers.bank import BankInfo, KnowledgeBank
from ciod_core.teachers.build import Built, Interview, build_bank
from ciod_core.teachers.summary import summarise
from tests.helpers.networks import lively_detector

INFO = BankInfo(
    teacher_sha256="ab" * 32,
    classes=("a", "b", "c"),
    image_size=64,
    # An untrained teacher is sure of nothing; a low threshold makes it speak.
    resampler=ResamplerConfig(rule="fixed", fixed_score=0.02, nms_iou=0.65),
)


class Setting:
    """A few images in a folder of their own, a teacher, and a bank beside them."""

    def __init__(self, source: DatasetSource, folder: Path) -> None:
        self.folder = folder
        self.images = Path(shutil.copytree(source.train.images, folder / "images"))
        whole = read_coco(source.train.annotations)
        first_I = np.arange(whole.num_images) < 6
        self.table = whole.select(np.ones(whole.num_boxes, dtype=np.bool_), first_I)
        self.detector = lively_detector(num_classes=3, seed=4).eval()
        self.classes = class_table([[(entry.name, entry.id) for entry in whole.categories[:3]]])
        self.asked: list[int] = []

    def build(self, info: BankInfo = INFO, table: AnnotationTable | None = None, *, overwrite: bool = False) -> Built:
        interview = Interview(
            self.detector,
            self.classes,
            info,
            self.images,
            torch.device("cpu"),
            batch_size=4,
            on_images=self.asked.append,
        )
        return build_bank(self.folder / "bank.safetensors", interview, table or self.table, overwrite=overwrite)


@pytest.fixture
def setting(shapes_dataset: DatasetSource, tmp_path: Path) -> Setting:
    return Setting(shapes_dataset, tmp_path)


def test_every_image_is_asked_about_once(setting: Setting) -> None:
    built = setting.build()
    assert built.num_asked == 6 and sum(setting.asked) == 6
    assert len(built.bank) == 6 and built.bank.num_answers > 6
    again = setting.build()
    assert again.num_asked == 0 and sum(setting.asked) == 6


def test_answers_lie_in_the_image(setting: Setting) -> None:
    built = setting.build()
    for row, sha256 in enumerate(built.hashes_I):
        kept = built.bank.of_image(sha256)
        assert kept is not None
        width, height = int(setting.table.widths_I[row]), int(setting.table.heights_I[row])
        assert (kept.boxes_K4 >= 0).all()
        assert (kept.boxes_K4 <= np.array([width, height, width, height]) + 1e-3).all()
        assert (kept.boxes_K4[:, 2:] > kept.boxes_K4[:, :2]).all()
        assert (kept.scores_K >= 0.02).all()


def test_only_new_and_changed_images_are_asked_about(setting: Setting) -> None:
    first_I = np.arange(setting.table.num_images) < 4
    setting.build(table=setting.table.select(np.ones(setting.table.num_boxes, dtype=np.bool_), first_I))
    assert setting.build().num_asked == 2
    path = setting.images / str(setting.table.file_names_I[0])
    path.write_bytes(path.read_bytes() + b"\0")
    assert setting.build().num_asked == 1


def test_a_renamed_image_is_known(setting: Setting) -> None:
    setting.build()
    one_I = np.arange(setting.table.num_images) == 1
    table = setting.table.select(np.ones(setting.table.num_boxes, dtype=np.bool_), one_I)
    old, new = (setting.images / name for name in (str(setting.table.file_names_I[0]), str(table.file_names_I[0])))
    new.write_bytes(old.read_bytes())
    assert setting.build(table=table).num_asked == 0


def test_an_interrupted_call_goes_on(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "IMAGES_PER_CHUNK", 2)
    monkeypatch.setattr(build, "SECONDS_BETWEEN_WRITES", 0.0)
    forward, calls = Detector.forward, 0

    def interrupted(self: Detector, *arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return forward(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Detector, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        setting.build()
    assert len(KnowledgeBank(setting.folder / "bank.safetensors")) == 4
    assert setting.build().num_asked == 2


def test_other_knowledge_is_not_mixed_in(setting: Setting) -> None:
    setting.build()
    other = INFO.model_copy(update={"teacher_sha256": "cd" * 32})
    with pytest.raises(ConfigError, match=r"a bank is there whose teacher_sha256 is abab.*--overwrite"):
        setting.build(other)
    assert setting.build(other, overwrite=True).num_asked == 6
    assert KnowledgeBank(setting.folder / "bank.safetensors").info == other


def test_a_missing_image(setting: Setting) -> None:
    (setting.images / str(setting.table.file_names_I[2])).unlink()
    with pytest.raises(DataError, match=r"cannot be read \(No such file or directory\); restore it"):
        setting.build()
    assert not (setting.folder / "bank.safetensors").exists()


def test_the_mirrored_look_comes_back_into_the_images_frame(setting: Setting) -> None:
    """On images and their mirror images a look each way gives the same answers."""
    looks = {}
    for flip in (False, True):
        dataset = build.DetectionDataset(setting.table, setting.images, setting.classes, build.EvalTransform(64, flip))
        batch = next(iter(build.make_loader(dataset, 6, shuffle=False)))
        images = batch.images_B3HW.flip(3) if flip else batch.images_B3HW
        output = setting.detector(images)
        if flip:
            boxes = output.boxes_BA4.clone()
            boxes[..., 0], boxes[..., 2] = 64 - output.boxes_BA4[..., 2], 64 - output.boxes_BA4[..., 0]
            output = output._replace(boxes_BA4=boxes)
        kept = build.select_knowledge(output, build.build_rule(INFO.resampler), nms_iou=0.65)
        looks[flip] = build._in_source_frame(batch, 0, kept.pick(kept.image_K == 0), flip)
    assert len(looks[False]) > 0
    np.testing.assert_allclose(looks[False].boxes_K4, looks[True].boxes_K4, atol=0.1)


def test_averaging_keeps_the_answers_and_changes_them(setting: Setting) -> None:
    plain = setting.build().bank
    counts = {sha256: len(kept) for sha256, kept in plain.all_answers()}
    logits = np.concatenate([kept.class_logits_KC for _, kept in plain.all_answers()])
    info = INFO.model_copy(update={"flip": True, "scales": (1.5,)})
    built = setting.build(info, overwrite=True)
    assert {sha256: len(kept) for sha256, kept in built.bank.all_answers()} == counts
    assert not np.allclose(np.concatenate([kept.class_logits_KC for _, kept in built.bank.all_answers()]), logits)


def test_recall_and_precision_against_hidden_labels(setting: Setting) -> None:
    """Counted again in plain loops."""
    built = setting.build()
    summary = summarise(built.bank, built.hashes_I, setting.classes, setting.table, setting.table)
    found, boxes = plain_matches(built, setting.table, setting.classes)
    assert [entry.found for entry in summary.per_class] == found
    assert [entry.hidden_boxes for entry in summary.per_class] == boxes
    assert sum(entry.answers for entry in summary.per_class) == built.bank.num_answers == sum(summary.histogram)
    blind = summarise(built.bank, built.hashes_I, setting.classes, setting.table, None)
    assert all(entry.recall is None and entry.precision is None for entry in (*blind.per_class, blind.total))


def plain_matches(built: Built, table: AnnotationTable, classes: ClassTable) -> tuple[list[int], list[int]]:
    found, boxes = [0] * len(classes), [0] * len(classes)
    for row, sha256 in enumerate(built.hashes_I):
        kept = built.bank.of_image(sha256)
        assert kept is not None
        rows = range(int(table.offsets[row]), int(table.offsets[row + 1]))
        for label, category_id in enumerate(classes.category_ids):
            free = [index for index in rows if table.category_ids_N[index] == category_id]
            boxes[label] += len(free)
            mine = [index for index in range(len(kept)) if kept.labels_K[index] == label]
            for answer in sorted(mine, key=lambda index: -float(kept.scores_K[index])):
                overlaps = [
                    float(
                        pairwise_iou(
                            torch.from_numpy(kept.boxes_K4[[answer]]), torch.from_numpy(table.boxes_N4[[index]])
                        )
                    )
                    for index in free
                ]
                if overlaps and max(overlaps) >= 0.5:
                    free.pop(overlaps.index(max(overlaps)))
                    found[label] += 1
    return found, boxes
