"""Two parts of a dataset put together, against dictionaries of boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ciod_core.data.annotations.merging import LocatedTable, merge, merge_located, unite_images
from ciod_core.data.annotations.table import AnnotationTable, Category
from tests.helpers.tables import make_table

CATEGORIES = tuple(Category(number, f"class{number}") for number in (3, 8, 1))
IDS = [category.id for category in CATEGORIES]
Row = tuple[int, int, tuple[float, ...], float, bool]


def numbered(images: list[list[int]]) -> AnnotationTable:
    """A table in which no two images or boxes are alike."""
    table = make_table(images, CATEGORIES)
    index_N, index_I = np.arange(table.num_boxes), np.arange(table.num_images)
    boxes_N4 = np.stack([index_N, index_N, index_N + 5, index_N + 7], axis=1).astype(np.float32)
    sizes_I = (64 + index_I).astype(np.int32)
    return replace(table, boxes_N4=boxes_N4, areas_N=index_N.astype(np.float32), widths_I=sizes_I, heights_I=sizes_I)


def content(table: AnnotationTable) -> dict[int, tuple[str, int, int, list[Row]]]:
    """What a table says, image by image."""
    said = {}
    for image in range(table.num_images):
        rows = table.rows_of(image)
        columns = (
            table.annotation_ids_N[rows].tolist(),
            table.category_ids_N[rows].tolist(),
            map(tuple, table.boxes_N4[rows].tolist()),
            table.areas_N[rows].tolist(),
            table.crowd_N[rows].tolist(),
        )
        size = int(table.widths_I[image]), int(table.heights_I[image])
        said[int(table.image_ids_I[image])] = (str(table.file_names_I[image]), *size, list(zip(*columns, strict=True)))
    return said


def part(table: AnnotationTable, box_mask: np.ndarray, image_ids: list[int]) -> AnnotationTable:
    """These images in this order, with the boxes of the mask."""
    position = {int(number): index for index, number in enumerate(table.image_ids_I)}
    order = [position[number] for number in image_ids]
    rows = [row for image in order for row in range(*table.rows_of(image).indices(table.num_boxes)) if box_mask[row]]
    counts = [int(box_mask[table.rows_of(image)].sum()) for image in order]
    return replace(
        table,
        **{name: getattr(table, name)[order] for name in ("image_ids_I", "file_names_I", "widths_I", "heights_I")},
        **{
            name: getattr(table, name)[rows]
            for name in ("annotation_ids_N", "category_ids_N", "boxes_N4", "areas_N", "crowd_N")
        },
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


boxes = st.lists(st.sampled_from(IDS + [-number for number in IDS]), max_size=4)


@given(st.lists(boxes, max_size=8), st.data())
def test_every_image_has_the_boxes_of_both_tables(images: list[list[int]], data: st.DataObject) -> None:
    whole = numbered(images)
    in_first = np.array(data.draw(st.lists(st.booleans(), min_size=whole.num_boxes, max_size=whole.num_boxes)), bool)
    everywhere = whole.image_ids_I.tolist()
    chosen = st.lists(st.sampled_from(everywhere), unique=True) if everywhere else st.just([])
    first, second = part(whole, in_first, data.draw(chosen)), part(whole, ~in_first, data.draw(chosen))

    merged = merge(first, second)

    one, other = content(first), content(second)
    expected = {
        number: (*(one.get(number) or other[number])[:3], [*one.get(number, [[]])[-1], *other.get(number, [[]])[-1]])
        for number in [*one, *(number for number in other if number not in one)]
    }
    found = content(merged)
    assert found == expected
    assert list(found) == list(expected), "images keep their order"


def test_classes_of_both_and_nothing_that_belongs_to_one_file() -> None:
    first = replace(make_table([[3]], CATEGORIES[:2]), sha256="0" * 64, clipped_boxes=2)
    second = replace(make_table([[1], [8]], CATEGORIES[1:]), sha256="1" * 64, clipped_boxes=1)
    merged = merge(first, second)
    assert merged.categories == CATEGORIES
    assert (merged.sha256, merged.clipped_boxes) == ("", 3)
    for name in ("image_ids_I", "widths_I", "offsets", "category_ids_N", "boxes_N4", "areas_N", "crowd_N"):
        assert getattr(merged, name).dtype == getattr(first, name).dtype, name


class TestSameImages:
    """Images by letter: their content."""

    @staticmethod
    def united(*parts: tuple[list[list[int]], str, tuple[Category, ...]]) -> list[AnnotationTable]:
        tables = [
            replace(
                make_table(images, categories),
                image_ids_I=1000 * place + np.arange(len(images)),
                widths_I=np.array([48 if letter.isupper() else 64 for letter in letters], dtype=np.int32),
            )
            for place, (images, letters, categories) in enumerate(parts, start=1)
        ]
        contents = [list(letters.lower()) for _, letters, _ in parts]
        return [table for table, _ in unite_images([LocatedTable(table, Path()) for table in tables], contents)]

    def test_they_get_the_id_of_the_first(self) -> None:
        tables = self.united(([[3], []], "ab", CATEGORIES), ([[3]], "c", CATEGORIES), ([[1], [8]], "cb", CATEGORIES))
        assert [table.image_ids_I.tolist() for table in tables] == [[1000, 1001], [2000], [2000, 1001]]

    def test_a_class_keeps_the_labels_of_the_first_table_that_lists_it(self) -> None:
        three, eight = CATEGORIES[:2]
        tables = self.united(
            ([[3], []], "ab", (three,)), ([[3, 8], [3, 8], [3]], "abc", (three, eight)), ([[8, 1, -3]], "b", CATEGORIES)
        )
        assert [table.category_ids_N.tolist() for table in tables] == [[3], [8, 8, 3], [1]]
        merged = merge(merge(tables[0], tables[1]), tables[2])
        assert content(merged).keys() == {1000, 1001, 2002} and merged.category_ids_N.tolist() == [3, 8, 8, 1, 3]

    def test_other_tables_stay_as_they_are(self) -> None:
        tables = self.united(([[3], [8]], "aa", CATEGORIES), ([[1, -8], [], [3]], "bcd", CATEGORIES))
        assert [table.image_ids_I.tolist() for table in tables] == [[1000, 1001], [2000, 2001, 2002]]
        assert [table.category_ids_N.tolist() for table in tables] == [[3, 8], [1, 8, 3]]

    def test_a_repeated_image_and_one_of_another_frame_stay_apart(self) -> None:
        tables = self.united(([[3], [8]], "aa", CATEGORIES), ([[], [1], [3], [8]], "aaaA", CATEGORIES))
        assert tables[1].image_ids_I.tolist() == [1000, 1001, 2002, 2003]
        assert tables[1].category_ids_N.tolist() == [3, 8]


class TestFolders:
    def test_one_folder_stays_as_it_is(self, tmp_path: Path) -> None:
        table = numbered([[3], [8, 1]])
        parts = [LocatedTable(table, Path("images")), LocatedTable(table.select(table.crowd_N), Path("images"))]
        merged = merge_located(parts)
        assert merged.image_dir == Path("images")
        assert merged.table.file_names_I.tolist() == ["0.jpg", "1.jpg"]
        assert merge_located(parts[:1]).table is table

    def test_names_start_from_the_folder_that_all_share(self, tmp_path: Path) -> None:
        first, second = numbered([[3], []]), numbered([[8]])
        second = replace(second, image_ids_I=second.image_ids_I + 50, annotation_ids_N=second.annotation_ids_N + 50)
        parts = [LocatedTable(first, tmp_path / "old" / "train"), LocatedTable(second, tmp_path / "new")]
        merged = merge_located(parts)
        assert merged.image_dir == tmp_path.resolve()
        assert merged.table.file_names_I.tolist() == ["old/train/0.jpg", "old/train/1.jpg", "new/0.jpg"]

    def test_a_folder_within_the_other(self, tmp_path: Path) -> None:
        first, second = numbered([[3]]), replace(numbered([[8]]), image_ids_I=np.array([7]))
        merged = merge_located([LocatedTable(first, tmp_path), LocatedTable(second, tmp_path / "new")])
        assert merged.table.file_names_I.tolist() == ["0.jpg", "new/0.jpg"]
