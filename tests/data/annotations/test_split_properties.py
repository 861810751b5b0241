"""What holds for every dataset, plan and protocol, against counting by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from ciod_core.data.annotations.protocols import Protocol
from ciod_core.data.annotations.split import StepPartition, split_steps
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.errors import DataError
from tests.helpers.tables import make_table

CATEGORIES = tuple(Category(number, f"class{number}") for number in (3, 8, 1, 20, 5))
IDS = [category.id for category in CATEGORIES]


@dataclass(frozen=True)
class Case:
    """A dataset, a plan and how to split."""

    table: AnnotationTable
    groups: tuple[tuple[Category, ...], ...]
    protocol: Protocol
    seed: int

    def split(self) -> StepPartition:
        """Split it; draws that leave a class without a box are not interesting here."""
        try:
            return split_steps(self.table, self.table, self.groups, self.protocol, self.seed)
        except DataError:
            assume(False)
            raise


@st.composite
def cases(draw: st.DrawFn) -> Case:
    # One image of everything per class and step makes most cases keep a box of every class.
    crowded = st.lists(st.sampled_from(IDS + [-number for number in IDS]), max_size=8)
    images = draw(st.lists(crowded, max_size=12)) + [IDS] * draw(st.integers(1, 12))
    images = draw(st.permutations(images))
    order = draw(st.permutations(CATEGORIES))
    cuts = sorted(draw(st.sets(st.integers(1, len(CATEGORIES)), min_size=1, max_size=3)))
    groups = tuple(order[start:end] for start, end in zip([0, *cuts], cuts, strict=False))
    protocol = draw(st.sampled_from(["overlap", "disjoint", "loco"]))
    return Case(make_table(images, CATEGORIES), tuple(map(tuple, groups)), protocol, draw(st.integers(0, 2**32 - 1)))


def boxes_on(table: AnnotationTable, image_ids: set[int], ids: set[int], crowd: bool = False) -> set[int]:
    """Annotation ids of the boxes of these classes on these images."""
    owners_N = table.image_ids_I[table.image_of_box_N]
    rows = zip(owners_N, table.category_ids_N, table.crowd_N, table.annotation_ids_N, strict=True)
    return {
        int(number)
        for owner, category, is_crowd, number in rows
        if owner in image_ids and category in ids and (crowd or not is_crowd)
    }


def ids_of(group: tuple[Category, ...]) -> set[int]:
    return {category.id for category in group}


@given(cases())
def test_a_step_has_exactly_the_boxes_of_its_classes_on_its_images(case: Case) -> None:
    for step, group in zip(case.split().steps, case.groups, strict=True):
        images = set(step.train.image_ids_I.tolist())
        assert len(images) == step.train.num_images
        labeled = step.train.annotation_ids_N.tolist()
        assert len(labeled) == len(set(labeled))
        assert set(labeled) == boxes_on(case.table, images, ids_of(group), crowd=True)
        assert step.train.categories == group
        with_object = step.train.images_with(~step.train.crowd_N)
        assert with_object.all()


@given(cases())
def test_overlap_takes_every_image_and_the_others_each_at_most_once(case: Case) -> None:
    split = case.split()
    uses = Counter(image for step in split.steps for image in step.train.image_ids_I.tolist())
    owners = case.table.image_ids_I[case.table.image_of_box_N]
    for step, group in zip(split.steps, case.groups, strict=True):
        shown = set(owners[case.table.with_category(tuple(ids_of(group))) & ~case.table.crowd_N].tolist())
        used = set(step.train.image_ids_I.tolist())
        assert used == shown if case.protocol == "overlap" else used <= shown
    planned = case.table.with_category(tuple(ids_of(sum(case.groups, ())))) & ~case.table.crowd_N
    if case.protocol != "overlap":
        assert max(uses.values()) == 1
    if case.protocol == "loco":
        assert set(uses) == set(owners[planned].tolist())
    assert split.unused_images == case.table.num_images - len(uses)


@given(cases())
def test_statistics_are_what_counting_gives(case: Case) -> None:
    split = case.split()
    images = [set(step.train.image_ids_I.tolist()) for step in split.steps]
    planned = ids_of(sum(case.groups, ()))
    for row, (step, group) in enumerate(zip(split.steps, case.groups, strict=True)):

        def count(ids: set[int], here: set[int] = images[row]) -> int:
            return len(boxes_on(case.table, here, ids))

        statistics = step.statistics
        assert statistics.images == len(images[row])
        assert statistics.boxes_per_class == {category.name: count({category.id}) for category in group}
        assert statistics.hidden_old_boxes == count(ids_of(sum(case.groups[:row], ())))
        assert statistics.hidden_future_boxes == count(ids_of(sum(case.groups[row + 1 :], ())))
        assert statistics.hidden_left_out_boxes == count(set(IDS) - planned)
        shared = {other + 1: len(images[row] & images[other]) for other in range(len(images)) if other != row}
        assert statistics.shared_images == shared


@given(cases())
def test_validation_has_every_image_and_the_classes_so_far(case: Case) -> None:
    everywhere = set(case.table.image_ids_I.tolist())
    for step in case.split().steps:
        seen = ids_of(sum(case.groups[: step.step], ()))
        assert step.val.num_images == case.table.num_images
        assert set(step.val.annotation_ids_N.tolist()) == boxes_on(case.table, everywhere, seen, crowd=True)


@given(cases(), st.randoms())
def test_the_order_of_boxes_does_not_matter(case: Case, random: Random) -> None:
    rows = []
    for image in range(case.table.num_images):
        own = list(range(*case.table.rows_of(image).indices(case.table.num_boxes)))
        random.shuffle(own)
        rows += own
    table = case.table
    shuffled = replace(
        table,
        annotation_ids_N=table.annotation_ids_N[rows],
        category_ids_N=table.category_ids_N[rows],
        crowd_N=table.crowd_N[rows],
    )
    again = replace(case, table=shuffled).split()
    for step, other in zip(case.split().steps, again.steps, strict=True):
        assert step.train.image_ids_I.tolist() == other.train.image_ids_I.tolist()
        assert sorted(step.train.annotation_ids_N.tolist()) == sorted(other.train.annotation_ids_N.tolist())
        assert step.statistics == other.statistics
