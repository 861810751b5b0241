"""The order of batches, resuming, sharing among processes and errors from workers."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciod_core.classes import class_table
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource
from ciod_core.data.loading.dataset import Batch, DetectionDataset, padded_to
from ciod_core.data.loading.loader import BatchLoader, batch_indices, make_loader
from ciod_core.data.loading.mixing import PAD_VALUE, Mixing
from ciod_core.data.loading.transforms import Augmentation, EvalTransform, TrainTransform
from ciod_core.errors import CiodError, DataError


def build(table: AnnotationTable, source: DatasetSource, **options: Any) -> DetectionDataset:
    classes = class_table([[(category.name, category.id) for category in table.categories]])
    transform = options.pop("transform", TrainTransform(64))
    return DetectionDataset(table, source.train.image_dir, classes, transform, **options)


@pytest.fixture
def dataset(shapes_dataset: DatasetSource) -> DetectionDataset:
    return build(read_coco(shapes_dataset.train.annotations), shapes_dataset)


def ids(batches: list[Batch]) -> list[list[int]]:
    return [batch.image_ids_B.tolist() for batch in batches]


def flat_ids(batches: list[Batch]) -> list[int]:
    return [image_id for batch in ids(batches) for image_id in batch]


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert ids(first) == ids(second)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one.images_B3HW, other.images_B3HW, rtol=0, atol=0)
        torch.testing.assert_close(one.targets.boxes_N4, other.targets.boxes_N4, rtol=0, atol=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(dataset: DetectionDataset, workers: int) -> None:
    for epoch in (0, 3):
        alone = list(make_loader(dataset, 5, shuffle=True, seed=1, epoch=epoch))
        helped = list(make_loader(dataset, 5, shuffle=True, seed=1, epoch=epoch, workers=workers))
        assert_same(alone, helped)


def test_order_is_drawn_per_seed_and_epoch(dataset: DetectionDataset) -> None:
    orders = [
        flat_ids(list(make_loader(dataset, 8, shuffle=True, seed=seed, epoch=epoch)))
        for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]
    assert orders[1] != orders[2]
    for order in orders:
        assert sorted(order) == dataset.table.image_ids_I.tolist()


def test_without_shuffling_the_order_is_the_table(dataset: DetectionDataset) -> None:
    loader = make_loader(dataset, 7, shuffle=False)
    assert len(loader) == 4
    batches = list(loader)
    assert flat_ids(batches) == dataset.table.image_ids_I.tolist()
    assert [len(batch) for batch in ids(batches)] == [7, 7, 7, 3]


@pytest.mark.parametrize(("batch_size", "world_size", "smallest"), [(8, 2, 4), (10, 2, 2), (9, 3, 2), (23, 4, 1)])
def test_processes_that_train_share_every_batch(
    dataset: DetectionDataset, batch_size: int, world_size: int, smallest: int
) -> None:
    def load(rank: int, processes: int) -> BatchLoader:
        return make_loader(dataset, batch_size, shuffle=True, seed=1, epoch=2, rank=rank, world_size=processes)

    whole, shares = ids(list(load(0, 1))), [ids(list(load(rank, world_size))) for rank in range(world_size)]
    for batch, *parts in zip(whole, *shares, strict=True):
        # Of fewer images than processes, every process trains on all.
        times = 1 if len(batch) >= world_size else world_size
        assert sorted(index for part in parts for index in part) == sorted(batch * times)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert {load(rank, world_size).smallest_batch for rank in range(world_size)} == {smallest}


def test_processes_that_look_at_images_once_take_turns(dataset: DetectionDataset) -> None:
    whole = ids(list(make_loader(dataset, 5, shuffle=False)))
    first, second = (ids(list(make_loader(dataset, 5, shuffle=False, rank=rank, world_size=2))) for rank in range(2))
    assert [batch for turn in zip_longest(first, second) for batch in turn if batch] == whole
    assert ids(list(make_loader(dataset, 24, shuffle=False, rank=1, world_size=2))) == []


def test_a_batch_is_padded_to_the_frame_of_other_processes(dataset: DetectionDataset) -> None:
    batch = next(iter(make_loader(dataset, 2, shuffle=False)))
    height, width = batch.images_B3HW.shape[2:]
    padded = padded_to(batch, height + 32, width + 64).images_B3HW
    assert padded.shape[2:] == (height + 32, width + 64)
    assert torch.equal(padded[..., :height, :width], batch.images_B3HW)
    assert (padded[..., height:, :] == PAD_VALUE).all() and (padded[..., width:] == PAD_VALUE).all()
    assert padded_to(batch, height, width) is batch


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_arrives_as_it_was_raised(dataset: DetectionDataset, tmp_path: Path, workers: int) -> None:
    dataset.image_dir = tmp_path
    with pytest.raises(DataError, match=r"^[^\n]*000000\.jpg: image file is missing \(listed in [^\n]*$"):
        list(make_loader(dataset, 4, shuffle=False, workers=workers))


class _DyingTransform(EvalTransform):
    def draw(self, rng: np.random.Generator) -> Augmentation:
        os._exit(3)


def test_a_worker_that_dies_is_reported_in_one_line(dataset: DetectionDataset) -> None:
    dataset.transform = _DyingTransform(64)
    with pytest.raises(CiodError, match=r"^data loading: DataLoader worker [^\n]*; lower data\.workers [^\n]*$"):
        list(make_loader(dataset, 4, shuffle=False, workers=1))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mixing", [None, Mixing(mosaic=0.5), Mixing(mixup=0.5)])
def test_samples_name_the_classes_without_labels_on_any_of_their_images(
    dataset: DetectionDataset, shapes_dataset: DatasetSource, workers: int, mixing: Mixing | None
) -> None:
    table = read_coco(shapes_dataset.train.annotations)
    missing_IC = np.random.default_rng(0).random((table.num_images, 8)) < 0.1
    dataset = build(table, shapes_dataset, mixing=mixing, missing_IC=missing_IC)
    marks = [batch.missing_BC for batch in make_loader(dataset, 5, shuffle=True, workers=workers)]
    order = [index for batch in batch_indices(24, 5, order_seed=(0, 0)) for index in batch]
    sources = [[placement.index for placement in dataset[index].placements] for index in order]
    expected = np.array([missing_IC[indices].any(axis=0) for indices in sources])
    assert np.array_equal(np.concatenate(marks), expected)
    by_company = expected & ~missing_IC[[first for first, *_ in sources]]
    assert by_company.any() == (mixing is not None)


def test_with_all_labels_nothing_is_marked(dataset: DetectionDataset) -> None:
    assert not any(batch.missing_BC is not None for batch in make_loader(dataset, 8, shuffle=True))


def test_an_image_listed_twice_is_loaded_twice(shapes_dataset: DatasetSource) -> None:
    table = read_coco(shapes_dataset.train.annotations)
    repeated = replace(table, file_names_I=np.full_like(table.file_names_I, table.file_names_I[0]))
    dataset = build(repeated, shapes_dataset, transform=EvalTransform(64))
    first, second = (batch.images_B3HW for batch in list(make_loader(dataset, 12, shuffle=False)))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_half_of_every_batch_comes_from_the_images_beside() -> None:
    beside_I = np.zeros(17, dtype=np.bool_)
    beside_I[[2, 5, 11]] = True
    batches = batch_indices(17, 6, order_seed=(0, 1), beside_I=beside_I)
    # 14 images in threes.
    assert len(batches) == 5
    assert all(sum(bool(beside_I[index]) for index in batch) == 3 for batch in batches)
    once = [index for batch in batches for index in batch if not beside_I[index]]
    assert sorted(once) == sorted(np.flatnonzero(~beside_I).tolist())
    used = [index for batch in batches for index in batch if beside_I[index]]
    counts = np.bincount(used)[[2, 5, 11]]
    assert counts.max() - counts.min() <= 1
    other = batch_indices(17, 6, order_seed=(0, 2), beside_I=beside_I)
    assert other != batches
