"""Samples and batches: labels, padding, reproducible draws."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ciod_core.classes import ClassTable, class_table
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource, resolve_dataset
from ciod_core.data.loading.dataset import PAD_VALUE, DetectionDataset, Sample, collate
from ciod_core.data.loading.placement import move_boxes
from ciod_core.data.loading.transforms import EvalTransform, TrainTransform
from ciod_core.errors import DataError


def classes_of(table: AnnotationTable) -> ClassTable:
    return class_table([[(category.name, category.id) for category in table.categories]])


@pytest.fixture
def table(shapes_dataset: DatasetSource) -> AnnotationTable:
    return read_coco(shapes_dataset.train.annotations)


def test_a_sample_holds_the_image_and_its_objects(shapes_dataset: DatasetSource, table: AnnotationTable) -> None:
    dataset = DetectionDataset(table, shapes_dataset.train.images, classes_of(table), EvalTransform(64))
    assert len(dataset) == 24
    sample = dataset[5]
    stored = np.asarray(Image.open(shapes_dataset.train.images / str(table.file_names_I[5])))
    np.testing.assert_array_equal(sample.image_3HW.numpy(), stored.transpose(2, 0, 1))
    rows = table.rows_of(5)
    np.testing.assert_allclose(sample.boxes_G4, table.boxes_N4[rows])
    assert sample.labels_G.tolist() == (table.category_ids_N[rows] - 1).tolist()
    assert (sample.image_id, sample.scale, sample.size_hw) == (int(table.image_ids_I[5]), 1.0, (64, 64))
    assert (sample.image_3HW.dtype, sample.boxes_G4.dtype, sample.labels_G.dtype) == (
        torch.uint8,
        torch.float32,
        torch.int64,
    )


def test_evaluation_sees_the_fully_decoded_image_and_training_may_not(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((640, 480)).save(tmp_path / "a.jpg", quality=90)
    table = AnnotationTable(
        image_ids_I=np.array([1]),
        file_names_I=np.array(["a.jpg"]),
        widths_I=np.array([640], dtype=np.int32),
        heights_I=np.array([480], dtype=np.int32),
        offsets=np.array([0, 1]),
        annotation_ids_N=np.array([1]),
        category_ids_N=np.array([1]),
        boxes_N4=np.array([[64, 48, 320, 240]], dtype=np.float32),
        areas_N=np.array([1.0], dtype=np.float32),
        crowd_N=np.array([False]),
        categories=(Category(1, "a"),),
    )
    full = Image.open(tmp_path / "a.jpg").resize((160, 120), Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.asarray(full).transpose(2, 0, 1).copy())
    sample = DetectionDataset(table, tmp_path, classes_of(table), EvalTransform(160))[0]
    torch.testing.assert_close(sample.image_3HW, expected, rtol=0, atol=0)
    plain = TrainTransform(160, multi_scale=False, photometric=False, flip=0.0)
    trained = DetectionDataset(table, tmp_path, classes_of(table), plain)[0]
    difference = (trained.image_3HW.int() - expected.int()).abs().float().mean()
    assert 0 < difference < 8
    torch.testing.assert_close(trained.boxes_G4, sample.boxes_G4, rtol=0, atol=0)


def test_labels_follow_the_class_table_and_other_classes_go(
    shapes_dataset: DatasetSource, table: AnnotationTable
) -> None:
    classes = class_table([[("star", 4)], [("circle", 1)]])
    dataset = DetectionDataset(table, shapes_dataset.train.images, classes, EvalTransform(64))
    assert len(dataset) == 24
    labels = np.concatenate([dataset[index].labels_G.numpy() for index in range(24)])
    expected = [{4: 0, 1: 1}[category] for category in table.category_ids_N.tolist() if category in (1, 4)]
    assert labels.tolist() == expected


def test_crowd_boxes_are_left_out_unless_wanted(shapes_dataset: DatasetSource, table: AnnotationTable) -> None:
    crowd_N = np.zeros(table.num_boxes, dtype=np.bool_)
    crowd_N[table.rows_of(2)] = True
    crowded = replace(table, crowd_N=crowd_N)
    root, classes = shapes_dataset.train.images, classes_of(table)
    assert len(DetectionDataset(crowded, root, classes, EvalTransform(64))[2].labels_G) == 0
    kept = DetectionDataset(crowded, root, classes, EvalTransform(64), skip_crowd=False)[2]
    assert len(kept.labels_G) == int(crowd_N.sum()) > 0


def test_draws_depend_on_seed_epoch_and_index_alone(shapes_dataset: DatasetSource, table: AnnotationTable) -> None:
    def build(seed: int) -> DetectionDataset:
        return DetectionDataset(table, shapes_dataset.train.images, classes_of(table), TrainTransform(64), seed=seed)

    first, second = build(3), build(3)
    _ = [second[index] for index in range(6)]
    torch.testing.assert_close(first[7].image_3HW, second[7].image_3HW, rtol=0, atol=0)
    second.set_epoch(1)
    assert not same_image(first[7], second[7])
    second.set_epoch(0)
    assert same_image(first[7], second[7])
    assert not same_image(first[7], build(4)[7])


def same_image(first: Sample, second: Sample) -> bool:
    return first.image_3HW.shape == second.image_3HW.shape and bool((first.image_3HW == second.image_3HW).all())


def test_errors_name_image_and_annotation_file(
    shapes_dataset: DatasetSource, table: AnnotationTable, tmp_path: Path
) -> None:
    dataset = DetectionDataset(table, tmp_path, classes_of(table), EvalTransform(64))
    with pytest.raises(DataError, match=r"000003\.jpg: image file is missing \(listed in .*instances_train\.json\)"):
        dataset[3]
    names = table.file_names_I.astype("U20")
    names[0] = "../000000.jpg"
    climbing = DetectionDataset(
        replace(table, file_names_I=names), shapes_dataset.train.images, classes_of(table), EvalTransform(64)
    )
    with pytest.raises(DataError, match=r"file_name '\.\./000000\.jpg' does not stay inside"):
        climbing[0]
    resized = DetectionDataset(
        replace(table, widths_I=table.widths_I + 1), shapes_dataset.train.images, classes_of(table), EvalTransform(64)
    )
    with pytest.raises(DataError, match=r"image is 64x64 pixels, .*instances_train\.json says 65x64"):
        resized[0]


class TestSkippingCorruptImages:
    @pytest.fixture
    def images(self, shapes_dataset: DatasetSource, tmp_path: Path) -> Path:
        """Images of which the first, the sixth and the last two cannot be loaded, each for another reason."""
        folder = Path(shutil.copytree(shapes_dataset.train.images, tmp_path / "images"))
        (folder / "000000.jpg").unlink()
        (folder / "000005.jpg").write_bytes((folder / "000005.jpg").read_bytes()[:300])
        (folder / "000022.jpg").write_bytes(b"not an image")
        Image.new("RGB", (64, 60)).save(folder / "000023.jpg")
        return folder

    def build(self, table: AnnotationTable, images: Path, *, skip: bool = True, size: int = 64) -> DetectionDataset:
        return DetectionDataset(table, images, classes_of(table), TrainTransform(size), seed=3, skip_corrupt=skip)

    @pytest.mark.parametrize(
        ("index", "used", "skipped"),
        [(0, 1, [0]), (5, 6, [5]), (23, 1, [23, 0]), (22, 1, [22, 23, 0]), (7, 7, [])],
    )
    def test_the_next_image_stands_in(
        self, table: AnnotationTable, images: Path, index: int, used: int, skipped: list[int]
    ) -> None:
        sample = self.build(table, images)[index]
        assert sample.skipped == tuple(f"{number:06d}.jpg" for number in skipped)
        assert sample.image_id == int(table.image_ids_I[used])
        rows = table.rows_of(used)
        moved = move_boxes(sample.placements[0], table.boxes_N4[rows])
        np.testing.assert_array_equal(sample.boxes_G4, moved.boxes_K4)
        assert sample.labels_G.tolist() == (table.category_ids_N[rows][moved.keep_G] - 1).tolist()

    def test_it_is_augmented_by_the_draw_of_the_image_it_replaces(self, table: AnnotationTable, images: Path) -> None:
        """So that an image that appears twice in an epoch does not look the same twice."""
        dataset = self.build(table, images)
        draw = dataset.transform.draw(np.random.default_rng((3, 0, 5)))
        placement = dataset[5].placements[0]
        assert (max(placement.resized), placement.flip) == (draw.longer_side, draw.flip)
        assert not torch.equal(dataset[5].image_3HW, dataset[6].image_3HW)

    def test_a_name_outside_the_folder_is_no_corrupt_image(self, table: AnnotationTable, images: Path) -> None:
        names = table.file_names_I.astype("U20")
        names[0] = "../000000.jpg"
        with pytest.raises(DataError, match="does not stay inside"):
            self.build(replace(table, file_names_I=names), images)[0]

    def test_without_any_image_it_stops(self, table: AnnotationTable, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"none of the 24 images listed in [^\n]*instances_train\.json can be loaded"
        ):
            self.build(table, tmp_path)[4]

    def test_stopping_is_the_default(self, table: AnnotationTable, images: Path) -> None:
        with pytest.raises(DataError, match=r"000000\.jpg: image file is missing"):
            self.build(table, images, skip=False)[0]

    def test_a_batch_lists_what_was_skipped(self, table: AnnotationTable, images: Path) -> None:
        dataset = self.build(table, images)
        batch = collate([dataset[index] for index in (5, 7, 23)])
        assert batch.skipped == ("000005.jpg", "000023.jpg", "000000.jpg")


def make_sample(height: int, width: int, objects: int, image_id: int) -> Sample:
    return Sample(
        image_3HW=torch.full((3, height, width), image_id, dtype=torch.uint8),
        boxes_G4=torch.full((objects, 4), float(image_id)),
        labels_G=torch.full((objects,), image_id, dtype=torch.int64),
        image_id=image_id,
        scale=0.5 * image_id,
        size_hw=(height, width),
    )


def test_collate_pads_to_a_multiple_of_32_at_the_right_and_the_bottom() -> None:
    batch = collate([make_sample(40, 64, 2, 1), make_sample(64, 33, 0, 2), make_sample(10, 10, 1, 3)])
    assert batch.images_B3HW.shape == (3, 3, 64, 64)
    assert batch.images_B3HW.dtype == torch.uint8
    assert batch.sizes_B2.tolist() == [[40, 64], [64, 33], [10, 10]]
    for index, (height, width) in enumerate(batch.sizes_B2.tolist()):
        assert (batch.images_B3HW[index, :, :height, :width] == index + 1).all()
        assert (batch.images_B3HW[index, :, height:] == PAD_VALUE).all()
        assert (batch.images_B3HW[index, :, :, width:] == PAD_VALUE).all()
    assert batch.targets.image_N.tolist() == [0, 0, 2]
    assert batch.targets.labels_N.tolist() == [1, 1, 3]
    assert batch.targets.boxes_N4.tolist() == [[1.0] * 4, [1.0] * 4, [3.0] * 4]
    assert batch.image_ids_B.tolist() == [1, 2, 3]
    assert batch.scales_B.tolist() == [0.5, 1.0, 1.5]


def test_collate_of_images_without_objects() -> None:
    batch = collate([make_sample(32, 32, 0, 1), make_sample(32, 32, 0, 2)])
    assert batch.targets.boxes_N4.shape == (0, 4)
    assert batch.targets.image_N.shape == (0,)


@pytest.mark.parametrize(("name", "size"), [("bccd", 320), ("neu-det", 96), ("coco-tiny", 160)])
def test_real_boxes_return_to_their_place_through_the_scale(real_data: Path, name: str, size: int) -> None:
    source = resolve_dataset(str(real_data / name))
    table = read_coco(source.val.annotations)
    dataset = DetectionDataset(table, source.val.images, classes_of(table), EvalTransform(size), skip_crowd=False)
    for index in range(0, len(dataset), 10):
        sample = dataset[index]
        original_G4 = table.boxes_N4[table.rows_of(index)]
        extents_G2 = (original_G4[:, 2:] - original_G4[:, :2]) * sample.scale
        visible_G4 = original_G4[(extents_G2 >= 1.01).all(axis=1)]
        if len(visible_G4) == len(sample.boxes_G4):
            np.testing.assert_allclose(sample.boxes_G4.numpy() / sample.scale, visible_G4, atol=1.0 / sample.scale)
        assert max(sample.size_hw) == size
