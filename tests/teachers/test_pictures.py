"""Pictures of a bank: which images, what is on them, and that they are the bank's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ciod_core.data.images.hashes import ImageHashes
from ciod_core.drawing.layers import Layer
from ciod_core.experiment.folder import Experiment
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers import pictures
from ciod_core.teachers.bank import BankTeacher, KnowledgeBank, write_bank
from ciod_core.teachers.distill import distill
from ciod_core.teachers.pictures import draw_samples, sample_picture, samples_folder
from ciod_core.teachers.report import StepBank
from ciod_core.teachers.sources import TeacherOptions
from tests.teachers.test_resolve import config


@pytest.fixture
def distilled(own_copy: Path) -> StepBank:
    return distill(Experiment.open(own_copy), config(), TeacherOptions("step1"))


def rewrite(distilled: StepBank, changes: dict[int, Knowledge]) -> StepBank:
    """The same bank with other boxes for some images."""
    (table, image_dir), hashes = distilled.teacher.images, ImageHashes()
    known = dict(distilled.teacher.bank.items())
    known |= {hashes.get(image_dir / str(table.file_names_I[image])): boxes for image, boxes in changes.items()}
    write_bank(distilled.path, distilled.teacher.identity, known)
    return replace(distilled, teacher=BankTeacher(KnowledgeBank(distilled.path), distilled.teacher.images, hashes))


def silence(distilled: StepBank, images: list[int]) -> StepBank:
    """The same bank without any box for these images."""
    return rewrite(distilled, {image: Knowledge.empty(len(distilled.classes)) for image in images})


def names_of(distilled: StepBank, images: list[int]) -> list[str]:
    stems = [Path(str(distilled.teacher.images.table.file_names_I[image])).stem for image in images]
    return [f"{number:03d}-{stem}.png" for number, stem in enumerate(stems, start=1)]


def test_images_with_answers_come_first_spread_evenly(distilled: StepBank) -> None:
    count = distilled.teacher.images.table.num_images
    spoken = [0, 2, 3, 5, 6]
    quiet = silence(distilled, [image for image in range(count) if image not in spoken])
    assert [path.name for path in draw_samples(quiet, 3)] == names_of(quiet, [0, 3, 6])
    silent = [image for image in range(count) if image not in spoken]
    assert [path.name for path in draw_samples(quiet, 7)] == names_of(quiet, [*spoken, silent[0], silent[-1]])
    assert len(draw_samples(quiet, 1000)) == count


def test_earlier_pictures_are_replaced_and_other_files_left_alone(distilled: StepBank) -> None:
    first = draw_samples(distilled, 4)
    folder = samples_folder(distilled.path)
    assert folder.name == "step2.knowledge.samples" and {path.parent for path in first} == {folder}
    (folder / "notes.txt").write_text("mine")
    second = draw_samples(distilled, 2)
    assert {path.name for path in folder.iterdir()} == {path.name for path in second} | {"notes.txt"}
    for path in second:
        assert Image.open(path).size[0] >= 960


def layers_on(distilled: StepBank, image: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Layer]:
    seen: list[Layer] = []

    def watched(picture: Image.Image, layers: list[Layer]) -> Image.Image:
        seen.extend(layers)
        return picture

    monkeypatch.setattr(pictures, "draw_layers", watched)
    sample_picture(distilled, image)
    return {layer.title.split()[0]: layer for layer in seen}


def test_every_kind_of_box_is_shown_for_what_it_is(distilled: StepBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that found one hidden object of two and nothing else."""
    hidden, names = distilled.hidden, distilled.classes.names
    assert hidden is not None
    old_I = np.array([sum(hidden_rows(distilled, image)) for image in range(distilled.teacher.images.table.num_images)])
    image = int(np.flatnonzero(old_I >= 2)[0])
    row = int(np.flatnonzero(hidden.image_ids_I == distilled.teacher.images.table.image_ids_I[image])[0])
    rows = hidden.rows_of(row)
    old_G = np.array(hidden_rows(distilled, image))
    boxes_G4, labels_G = hidden.boxes_N4[rows][old_G], distilled.classes.labels_of(hidden.category_ids_N[rows][old_G])
    said = Knowledge(
        boxes_K4=torch.from_numpy(boxes_G4[:1]),
        labels_K=torch.from_numpy(labels_G[:1]),
        scores_K=torch.tensor([0.75]),
        class_logits_KC=torch.zeros(1, len(names)),
        responses={"objectness": torch.zeros(1)},
        image_K=torch.zeros(1, dtype=torch.int64),
        anchor_K=torch.full((1,), -1),
    )
    changed = rewrite(distilled, {image: said})

    layers = layers_on(changed, image, monkeypatch)
    assert list(layers["teacher"].texts) == [f"{names[labels_G[0]]} 0.75"]
    assert np.array_equal(layers["teacher"].boxes_D4, boxes_G4[:1])
    assert np.array_equal(layers["hidden"].boxes_D4, boxes_G4[1:])
    assert list(layers["hidden"].texts) == [names[label] for label in labels_G[1:]]
    assert np.array_equal(
        layers["labels"].boxes_D4,
        distilled.teacher.images.table.boxes_N4[distilled.teacher.images.table.rows_of(image)],
    )
    assert set(layers["labels"].texts) <= {
        category.name for category in distilled.teacher.images.table.categories
    } - set(names)
    assert len({(layer.color, layer.dashed) for layer in layers.values()}) == 3

    unknown = layers_on(replace(changed, hidden=None), image, monkeypatch)
    assert set(unknown) == {"teacher", "labels"}


def hidden_rows(distilled: StepBank, image: int) -> list[bool]:
    """Which of all labels of an image name an old class."""
    assert distilled.hidden is not None
    row = int(np.flatnonzero(distilled.hidden.image_ids_I == distilled.teacher.images.table.image_ids_I[image])[0])
    ids = distilled.hidden.category_ids_N[distilled.hidden.rows_of(row)]
    return [category_id in distilled.classes.category_ids for category_id in ids.tolist()]
