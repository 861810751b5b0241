"""Pictures of a bank: which images, what is on them, and that they are the bank's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciod_core.drawing.layers import Layer
from ciod_core.experiment.folder import Experiment
from ciod_core.model.knowledge import ImageKnowledge, no_answers
from ciod_core.teachers import samples
from ciod_core.teachers.asking import Asking
from ciod_core.teachers.bank import KnowledgeBank, write_bank
from ciod_core.teachers.distil import Distilled, distil
from ciod_core.teachers.samples import draw_samples, sample_picture, samples_folder
from tests.teachers.test_choice import config


@pytest.fixture
def distilled(own_copy: Path) -> Distilled:
    return distil(Experiment.open(own_copy), config(), Asking("step1"))


def silence(distilled: Distilled, images: list[int]) -> Distilled:
    """The same bank without any answer for these images."""
    answers = dict(distilled.bank.all_answers())
    answers |= {distilled.hashes_I[image]: no_answers(len(distilled.classes)) for image in images}
    write_bank(distilled.bank.path, distilled.bank.info, answers)
    return distilled._replace(bank=KnowledgeBank(distilled.bank.path))


def names_of(distilled: Distilled, images: list[int]) -> list[str]:
    stems = [Path(str(distilled.table.file_names_I[image])).stem for image in images]
    return [f"{number:03d}-{stem}.png" for number, stem in enumerate(stems, start=1)]


def test_images_with_answers_come_first_spread_evenly(distilled: Distilled) -> None:
    count = distilled.table.num_images
    spoken = [0, 2, 3, 5, 6]
    quiet = silence(distilled, [image for image in range(count) if image not in spoken])
    assert [path.name for path in draw_samples(quiet, 3)] == names_of(quiet, [0, 3, 6])
    silent = [image for image in range(count) if image not in spoken]
    assert [path.name for path in draw_samples(quiet, 7)] == names_of(quiet, [*spoken, silent[0], silent[-1]])
    assert len(draw_samples(quiet, 1000)) == count


def test_earlier_pictures_are_replaced_and_other_files_left_alone(distilled: Distilled) -> None:
    first = draw_samples(distilled, 4)
    folder = samples_folder(distilled.bank.path)
    assert folder.name == "step2.knowledge.samples" and {path.parent for path in first} == {folder}
    (folder / "notes.txt").write_text("mine")
    second = draw_samples(distilled, 2)
    assert {path.name for path in folder.iterdir()} == {path.name for path in second} | {"notes.txt"}
    for path in second:
        assert Image.open(path).size[0] >= 960


def layers_on(distilled: Distilled, image: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Layer]:
    seen: list[Layer] = []

    def watched(picture: Image.Image, layers: list[Layer]) -> Image.Image:
        seen.extend(layers)
        return picture

    monkeypatch.setattr(samples, "draw_layers", watched)
    sample_picture(distilled, image)
    return {layer.title.split()[0]: layer for layer in seen}


def test_every_kind_of_box_is_shown_for_what_it_is(distilled: Distilled, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that found one hidden object of two and nothing else."""
    hidden, names = distilled.hidden, distilled.classes.names
    assert hidden is not None
    old_I = np.array([sum(hidden_rows(distilled, image)) for image in range(distilled.table.num_images)])
    image = int(np.flatnonzero(old_I >= 2)[0])
    row = int(np.flatnonzero(hidden.image_ids_I == distilled.table.image_ids_I[image])[0])
    rows = hidden.rows_of(row)
    old_G = np.array(hidden_rows(distilled, image))
    boxes_G4, labels_G = hidden.boxes_N4[rows][old_G], distilled.classes.labels_of(hidden.category_ids_N[rows][old_G])
    logits = np.zeros((1, len(names)), np.float32)
    said = ImageKnowledge(boxes_G4[:1], labels_G[:1], logits, np.zeros(1, np.float32), np.array([0.75], np.float32))
    answers = dict(distilled.bank.all_answers()) | {distilled.hashes_I[image]: said}
    write_bank(distilled.bank.path, distilled.bank.info, answers)
    changed = distilled._replace(bank=KnowledgeBank(distilled.bank.path))

    layers = layers_on(changed, image, monkeypatch)
    assert list(layers["answers"].texts) == [f"{names[labels_G[0]]} 0.75"]
    assert np.array_equal(layers["answers"].boxes_D4, boxes_G4[:1])
    assert np.array_equal(layers["hidden"].boxes_D4, boxes_G4[1:])
    assert list(layers["hidden"].texts) == [names[label] for label in labels_G[1:]]
    assert np.array_equal(layers["labels"].boxes_D4, distilled.table.boxes_N4[distilled.table.rows_of(image)])
    assert set(layers["labels"].texts) <= {category.name for category in distilled.table.categories} - set(names)
    assert len({(layer.color, layer.dashed) for layer in layers.values()}) == 3

    unknown = layers_on(changed._replace(hidden=None), image, monkeypatch)
    assert set(unknown) == {"answers", "labels"}


def hidden_rows(distilled: Distilled, image: int) -> list[bool]:
    """Which of all labels of an image name an old class."""
    assert distilled.hidden is not None
    row = int(np.flatnonzero(distilled.hidden.image_ids_I == distilled.table.image_ids_I[image])[0])
    ids = distilled.hidden.category_ids_N[distilled.hidden.rows_of(row)]
    return [category_id in distilled.classes.category_ids for category_id in ids.tolist()]
