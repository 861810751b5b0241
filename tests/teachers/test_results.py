"""A results file becomes exactly the bank that it says, and every fault of it is one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from ciod_core.config.schema import ResamplerConfig
from ciod_core.data.images.hashes import ImageHashes
from ciod_core.data.loading.dataset import DetectionDataset
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.transforms import EvalTransform
from ciod_core.errors import CiodError, ConfigError, DataError
from ciod_core.files import sha256_of_file
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.boxes import OldClassImages
from ciod_core.teachers.distill import build_bank
from ciod_core.teachers.result_images import image_ids
from ciod_core.teachers.results import ResultsTeacher
from tests.helpers.elsewhere import OLD, result, three_images, write_json
from tests.helpers.tables import make_table

NAMES = "1 dog\n2 bird\n5 cat\n"
CAT, DOG = 0, 1


@pytest.fixture
def images(tmp_path: Path) -> OldClassImages:
    return three_images(tmp_path)


def opened(images: OldClassImages, content: Any, names: str | None = NAMES) -> ResultsTeacher:
    folder = images.images[1].parent
    classes = None
    if names is not None:
        classes = folder / "names.txt"
        classes.write_text(names)
    return ResultsTeacher(write_json(folder / "results.json", content), classes, images)


def all_knowledge(teacher: ResultsTeacher) -> list[Knowledge]:
    return list(teacher.annotate(range(teacher.images.table.num_images)))


def answers(images: OldClassImages, content: Any, names: str | None = NAMES) -> list[Knowledge]:
    return all_knowledge(opened(images, content, names))


def probabilities(logits: Tensor) -> np.ndarray:
    return logits.double().sigmoid().numpy()


def test_one_score_is_an_object_of_no_other_class(images: OldClassImages) -> None:
    first, second, third = answers(
        images,
        [result(3, 5, [10, 20, 30, 5], 0.75), result(1, 1, [0, 0, 8, 9], 1.0), result(1, 5, [9, 9, 9, 9], 0.2)],
    )
    np.testing.assert_array_equal(first.boxes_K4, [[0, 0, 8, 9], [9, 9, 18, 18]])
    assert first.labels_K.tolist() == [DOG, CAT]
    np.testing.assert_allclose(first.scores_K, [1.0, 0.2])
    np.testing.assert_allclose(probabilities(first.responses["objectness"]), [0.9999, 0.2], rtol=1e-5)
    np.testing.assert_allclose(probabilities(first.class_logits_KC), [[1e-4, 0.9999], [0.9999, 1e-4]], rtol=1e-3)
    assert len(second) == 0 and second.class_logits_KC.shape == (0, 2)
    np.testing.assert_array_equal(third.boxes_K4, [[10, 20, 40, 25]])


def test_a_vector_says_how_sure_it_is_of_every_class(images: OldClassImages) -> None:
    """In the order of the teacher's list: dog, bird, cat."""
    content = [
        result(1, 5, [0, 0, 20, 20], 0.6, scores=[0.3, 0.1, 0.6]),
        result(1, 1, [30, 30, 20, 20], 0.3, scores=[0.3, 0.8, 0.0]),
        result(2, 5, [0, 0, 20, 20], 0.5),
    ]
    first, second, _ = answers(images, content)
    assert first.labels_K.tolist() == [CAT, DOG]
    np.testing.assert_allclose(probabilities(first.responses["objectness"]), [0.6, 0.8], rtol=1e-5)
    np.testing.assert_allclose(probabilities(first.class_logits_KC), [[0.9999, 0.5], [1e-4, 0.375]], rtol=1e-3)
    product_KC = probabilities(first.class_logits_KC) * probabilities(first.responses["objectness"])[:, None]
    np.testing.assert_allclose(product_KC, [[0.6, 0.3], [0.0, 0.3]], atol=2e-4)
    np.testing.assert_allclose(first.scores_K, [0.6, 0.3])
    np.testing.assert_allclose(probabilities(second.class_logits_KC), [[0.9999, 1e-4]], rtol=1e-3)


def test_the_resampler_selects(images: OldClassImages) -> None:
    """Scores at the threshold stay; of boxes of one class that overlap by more than half, the best does."""
    content = [
        result(1, 5, [0, 0, 20, 20], 0.2),
        result(1, 5, [30, 30, 20, 20], 0.19),
        result(2, 5, [0, 0, 20, 20], 0.5),
        result(2, 5, [0, 2, 20, 20], 0.9),
        result(2, 1, [0, 1, 20, 20], 0.4),
        result(2, 5, [0, 14, 20, 20], 0.3),
    ]
    first, second, _ = answers(images, content)
    np.testing.assert_allclose(first.scores_K, [0.2])
    np.testing.assert_allclose(second.scores_K, [0.9, 0.4, 0.3])


@pytest.mark.parametrize(
    ("resampler", "scores"),
    [
        (ResamplerConfig(rule="crs", min_score=0.45), [0.9, 0.5]),
        (ResamplerConfig(rule="fixed", fixed_score=0.6, min_score=0.0), [0.9]),
    ],
)
def test_each_rule_has_its_threshold(tmp_path: Path, resampler: ResamplerConfig, scores: list[float]) -> None:
    asked = three_images(tmp_path, resampler)
    content = [result(1, 5, [20.0 * place, 0, 9, 9], score) for place, score in enumerate([0.9, 0.5, 0.4])]
    np.testing.assert_allclose(answers(asked, content)[0].scores_K, scores)


def test_rules_that_need_all_anchor_points_are_refused(tmp_path: Path) -> None:
    asked = three_images(tmp_path, ResamplerConfig(rule="class-stat"))
    with pytest.raises(ConfigError, match=r"`resampler\.rule`: 'class-stat' compares .*; set it to crs or fixed"):
        opened(asked, [result(1, 5, [0, 0, 9, 9], 0.5)])


def test_boxes_are_cut_to_their_image(images: OldClassImages) -> None:
    content = [result(1, 5, [-5, 50, 20, 40], 0.5), result(1, 1, [80, 0, 9, 9], 0.9), result(2, 1, [0, 0, 0.5, 9], 0.9)]
    found = opened(images, content)
    first, second, _ = all_knowledge(found)
    np.testing.assert_array_equal(first.boxes_K4, [[0, 50, 15, 64]])
    assert len(second) == 0
    assert any(
        "dropped 2 of 3 boxes, which lie outside their image or are thinner than a pixel" in note
        for note in found.notes
    )


def test_a_file_that_names_its_classes(images: OldClassImages) -> None:
    content = {
        "annotations": [result(1, 4, [0, 0, 9, 9], 0.5)],
        "categories": [{"id": 4, "name": "dog"}, {"id": 6, "name": "cat"}],
    }
    assert answers(images, content, names=None)[0].labels_K.tolist() == [DOG]
    with pytest.raises(
        ConfigError, match=r"`teacher_classes` .*names\.txt: not needed, .* names its classes; leave it out"
    ):
        opened(images, content)
    with pytest.raises(ConfigError, match=r"results\.json: does not name its classes; pass `teacher_classes`"):
        opened(images, content["annotations"], names=None)


def test_what_does_not_fit_is_counted(images: OldClassImages) -> None:
    content = [result(image_id, 2, [0, 0, 9, 9], 0.5) for image_id in (1, 8, 9, 9)]
    path = images.images[1].parent / "results.json"
    listed = f"step 2 ({images.images.table.path})"
    assert opened(images, content).notes == (
        f"{path.with_name('names.txt')}: ignored classes (not among the old classes): 1 of 3 (bird)",
        f"{path}: skipped 2 of its 3 images, which are not in {listed}",
        f"{path}: has no result for 2 of the 3 images of {listed}",
    )
    everywhere = [result(image_id, 5, [0, 0, 9, 9], 0.5) for image_id in (1, 2, 3)]
    assert opened(images, everywhere, "5 cat\n4 dog").notes == ()


@pytest.mark.parametrize("image", [4, "4", "four.png", "1.pn"])
def test_no_image_in_common(images: OldClassImages, image: Any) -> None:
    with pytest.raises(DataError, match=r"none of its 1 images is among the 3 of step 2 \(.*may\.json\); run the"):
        opened(images, [result(image, 5, [0, 0, 9, 9], 0.5)])


def test_a_detector_that_found_nothing(images: OldClassImages, tmp_path: Path) -> None:
    teacher = opened(images, [])
    assert [len(knowledge) for knowledge in all_knowledge(teacher)] == [0, 0, 0]
    assert any("has no result for 3 of the 3 images" in note for note in teacher.notes)
    built = build_bank(tmp_path / "bank.safetensors", teacher, ImageHashes())
    assert [len(kept) for _, kept in built.teacher.bank.items()] == [0, 0, 0]


def test_boxes_in_another_unit(images: OldClassImages) -> None:
    with pytest.raises(
        DataError, match=r"all 3 boxes lie outside their image or are thinner than a pixel; bbox is x, y"
    ):
        opened(images, [result(image, 5, [0.1, 0.2, 0.3, 0.4], 0.5) for image in (1, 2, 3)])


class TestImagesByName:
    """Images 10, 11, 12 and 13 are called 0007.jpg, day/8.jpg, a.b.png and day/a.png."""

    TABLE = dataclasses.replace(
        make_table([[], [], [], []], []),
        image_ids_I=np.arange(10, 14),
        file_names_I=np.array(["0007.jpg", "day/8.jpg", "a.b.png", "day/a.png"]),
        path=Path("may.json"),
    )

    @pytest.mark.parametrize(
        ("keys", "ids"),
        [
            ([10, 13, 10], [10, 13, 10]),
            ([10, 7], [10, 7]),
            ([7, 8, 7], [10, 11, 10]),
            (["0007", "8", "a.b", "a"], [10, 11, 12, 13]),
            ([7, 8, "a.b"], [10, 11, 12]),
            ([10, "a"], [9, 13]),
            (["0007.jpg", "8.jpg", "/data/a.b.png", "C:\\day\\a.png"], [10, 11, 12, 13]),
            (["day/8.jpg", "night/8.jpg", "a.jpg", "b", "b"], [11, 11, 9, 8, 8]),
            (["10", "13"], [10, 13]),
            ([], []),
        ],
    )
    def test_names(self, keys: list[int | str], ids: list[int]) -> None:
        assert image_ids("results.json", keys, self.TABLE).tolist() == ids

    def test_a_name_of_several_images(self) -> None:
        table = dataclasses.replace(self.TABLE, file_names_I=np.array(["a.jpg", "x/a.jpg", "x/1.jpg", "y/01.jpg"]))
        assert image_ids("", ["a.jpg", "x/a.jpg"], table).tolist() == [10, 11]
        for key in ("a", 1):
            with pytest.raises(DataError, match=rf"r\.json: image_id {key!r} fits several images of may\.json; write"):
                image_ids("r.json", [key], table)

    def test_in_a_file(self, images: OldClassImages) -> None:
        entry = result(77, 5, [0, 0, 9, 9], 0.5)
        for content in ([entry | {"file_name": "2.png"}], [entry | {"image_id": "2"}], [entry | {"image_id": "2.png"}]):
            assert [len(knowledge) for knowledge in answers(images, content)] == [0, 1, 0]


GOOD = result(1, 5, [0, 0, 9, 9], 0.5)
FAULTS: list[tuple[Any, str]] = [
    (5, "expected object | array, got int; a results file is a list of {image_id, category_id, bbox, score}, or"),
    ({"annotations": [GOOD]}, "object missing required field categories; a results file is"),
    ([GOOD, {}], "[1]: object missing required field image_id; correct that entry"),
    ([GOOD, "x"], "[1]: expected object, got str; correct that entry"),
    ([GOOD, GOOD | {"image_id": 1.5}], "[1].image_id: expected int | str, got float"),
    ([GOOD, GOOD | {"bbox": [0, 0, 9]}], "[1].bbox: expected array of length 4"),
    ([GOOD, GOOD | {"bbox": None}], "[1].bbox: expected array, got null"),
    ([GOOD, GOOD | {"bbox": [9, 9, -3, 5]}], "[1]: bbox [9.0, 9.0, -3.0, 5.0] is no box in an image; write x"),
    ([GOOD, GOOD | {"bbox": [0, 0, 1e30, 5]}], "[1]: bbox [0.0, 0.0, 1e+30, 5.0] is no box in an image"),
    ([GOOD, GOOD | {"score": "high"}], "[1].score: expected float, got str"),
    ([GOOD, GOOD | {"score": 50}], "[1]: score 50 is not between 0 and 1; write probabilities"),
    ([GOOD, GOOD | {"score": -0.1}], "[1]: score -0.1 is not between 0 and 1"),
    ([GOOD, GOOD | {"score": float("nan")}], "NaN is not a JSON number"),
    ([GOOD, GOOD | {"category_id": 9}], "[1]: category_id 9 is not in NAMES; add its name there"),
    ([GOOD, GOOD | {"scores": [0.1, 0.5]}], "[1]: scores has 2 values, the teacher 3 classes; write one for each"),
    ([GOOD, GOOD | {"scores": [0.1, 2, 0.5]}], "[1]: scores holds values that are not between 0 and 1"),
    ([GOOD, GOOD | {"scores": [0.5, 0.1, 0.2]}], "[1]: score is 0.5, and scores has another value for category_id 5; "),
    ([GOOD, GOOD | {"scores": 0.5}], "[1].scores: expected array | null, got float"),
    ({"annotations": [GOOD, GOOD | {"score": 2}], "categories": [{"id": 5, "name": "cat"}]}, "annotations[1]: score 2"),
    ({"annotations": [{}], "categories": []}, "annotations[0]: object missing required field image_id"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), FAULTS, ids=[message[:50] for _, message in FAULTS])
def test_every_fault_is_one_line(images: OldClassImages, content: Any, message: str) -> None:
    names = None if isinstance(content, dict) else NAMES
    with pytest.raises(DataError) as caught:
        opened(images, content, names)
    folder = images.images[1].parent
    line = str(caught.value)
    assert line.startswith(f"{folder / 'results.json'}: ") and "\n" not in line and ";" in line
    assert message.replace("NAMES", str(folder / "names.txt")) in line


def test_a_file_that_is_not_there_or_not_json(images: OldClassImages, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read \(No such file or directory\); pass the path of"):
        ResultsTeacher(tmp_path / "none.json", None, images)
    (tmp_path / "cut.json").write_text('[{"image_id": 1,')
    with pytest.raises(DataError, match="ends in the middle of the JSON"):
        ResultsTeacher(tmp_path / "cut.json", None, images)


def test_the_bank_names_its_teacher(images: OldClassImages, tmp_path: Path) -> None:
    built = build_bank(tmp_path / "bank.safetensors", opened(images, [GOOD]), ImageHashes())
    identity = built.teacher.identity
    assert (identity.teacher, identity.teacher_ids, identity.classes) == ("results", (5, 1), ("cat", "dog"))
    assert identity.teacher_sha256 == sha256_of_file(tmp_path / "results.json") and identity.foreign
    assert sorted(len(kept) for _, kept in built.teacher.bank.items()) == [0, 0, 1]


def test_the_same_results_with_other_names_are_other_knowledge(images: OldClassImages, tmp_path: Path) -> None:
    build_bank(tmp_path / "bank.safetensors", opened(images, [GOOD]), ImageHashes())
    swapped = opened(images, [GOOD], "1 cat\n2 bird\n5 dog\n")
    with pytest.raises(CiodError, match="a bank is there whose teacher_ids is"):
        build_bank(tmp_path / "bank.safetensors", swapped, ImageHashes())


def test_results_teach_a_batch_directly(images: OldClassImages) -> None:
    """Boxes follow their image into the batch."""
    teacher = opened(images, [result(2, 5, [8, 16, 20, 10], 0.75)])
    dataset = DetectionDataset(*images.images, OLD, EvalTransform(32, flip=True))
    known = teacher.answer(next(iter(make_loader(dataset, 3, shuffle=False))))
    assert known.image_K.tolist() == [1]
    np.testing.assert_array_equal(known.boxes_K4, [[18, 8, 28, 13]])
