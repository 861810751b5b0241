"""Fitting new data to the classes of a chain: classes are recognized by name, ids stay unique.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ciod_core.arrays import Int64Array
from ciod_core.classes import ClassTable, quoted, spelling
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.errors import DataError


@dataclass(frozen=True)
class FittedStep:
    """New data in the chain's own ids.

    Attributes:
        new_classes: classes that no earlier step knows, in the order in which the data lists them.
        train: all training images, with the boxes of the classes that they show.
        val: the validation images likewise; None without any.
        left_out: classes that the data lists, but shows on no training image.
    """

    new_classes: tuple[Category, ...]
    train: AnnotationTable
    val: AnnotationTable | None
    left_out: tuple[str, ...]


def fit_step(
    train: AnnotationTable,
    val: AnnotationTable | None,
    known: ClassTable,
    *,
    earlier_train: Sequence[AnnotationTable] = (),
    earlier_val: Sequence[AnnotationTable] = (),
) -> FittedStep:
    """Fit new data to a chain.

    A split labels a class when it shows at least one object of it: exports often list classes that nobody labeled, and
    an image without an object of such a class says nothing about it. Ids stay those of the data where they are free.

    Args:
        train: the new training annotations.
        val: the new validation annotations.
        known: the classes of the chain.
        earlier_train: the training annotations of earlier steps, whose ids are taken.
        earlier_val: the same for validation.

    Raises:
        DataError: nothing is labeled, or a class is called almost as a known one.
    """
    shown = _shown_classes(train)
    if not shown:
        raise DataError(f"{train.path}: shows no object, crowds apart; a step needs labeled objects to learn from")
    names = known.names
    _check_spelling(train, shown, names)
    new_classes = _with_free_ids([category for category in shown if category.name not in names], known)
    by_name = {entry.name: Category(entry.category_id, entry.name) for entry in known.entries}
    by_name |= {category.name: category for category in new_classes}
    fitted_val = None
    if val is not None:
        _check_spelling(val, _shown_classes(val), tuple(by_name))
        fitted_val = _fitted(val, by_name, earlier_val)
        if not fitted_val.categories:
            raise DataError(
                f"{val.path}: shows no object of a class that the detector will know; correct it, or leave it out"
            )
    return FittedStep(
        new_classes=new_classes,
        train=_fitted(train, by_name, earlier_train),
        val=fitted_val,
        left_out=tuple(category.name for category in train.categories if category not in shown),
    )


def objects_per_class(table: AnnotationTable) -> dict[str, int]:
    """Number of objects of each class in a table, crowds left out."""
    return {
        category.name: int(np.count_nonzero((table.category_ids_N == category.id) & ~table.crowd_N))
        for category in table.categories
    }


def _shown_classes(table: AnnotationTable) -> tuple[Category, ...]:
    objects = objects_per_class(table)
    return tuple(category for category in table.categories if objects[category.name])


def _check_spelling(table: AnnotationTable, shown: Iterable[Category], known: Sequence[str]) -> None:
    """Refuse a name that is almost a known one: two classes for the same thing would compete."""
    by_spelling = {spelling(name): name for name in known}
    for category in shown:
        match = by_spelling.get(spelling(category.name))
        if category.name not in known and match is not None:
            raise DataError(
                f"{table.path}: class {quoted(category.name)} differs from the known class {quoted(match)} by case, "
                f"spacing or Unicode form alone; call it {quoted(match)} in the data, or something else if it is "
                "another class"
            )


def _with_free_ids(new: Sequence[Category], known: ClassTable) -> tuple[Category, ...]:
    taken = set(known.category_ids)
    following = max((*taken, *(category.id for category in new)), default=0) + 1
    fitted = []
    for category in new:
        if category.id in taken:
            fitted.append(Category(following, category.name))
            following += 1
        else:
            fitted.append(category)
    return tuple(fitted)


def _fitted(
    table: AnnotationTable, by_name: Mapping[str, Category], earlier: Sequence[AnnotationTable]
) -> AnnotationTable:
    """The table with the boxes of the classes in `by_name` that it shows, in the chain's ids."""
    own = [category for category in _shown_classes(table) if category.name in by_name]
    kept = table.select(table.with_category(tuple(category.id for category in own)))
    fitted_id = {category.id: by_name[category.name].id for category in own}
    category_ids_N = np.array([fitted_id[number] for number in kept.category_ids_N.tolist()], dtype=np.int64)
    return replace(
        kept,
        image_ids_I=_free(kept.image_ids_I, [other.image_ids_I for other in earlier]),
        annotation_ids_N=_free(kept.annotation_ids_N, [other.annotation_ids_N for other in earlier]),
        category_ids_N=category_ids_N,
        categories=tuple(by_name[category.name] for category in own),
    )


def _free(ids: Int64Array, taken: Sequence[Int64Array]) -> Int64Array:
    """The ids as they are where none of them is taken, else numbered on from the largest there is."""
    if not any(np.isin(ids, others).any() for others in taken):
        return ids
    largest = max(int(others.max(initial=0)) for others in taken)
    return largest + 1 + np.arange(len(ids), dtype=np.int64)
