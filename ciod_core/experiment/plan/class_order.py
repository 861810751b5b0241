"""Class orders and class names: how a plan finds the classes that it counts or names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from ciod_core.classes import closest_name, quoted
from ciod_core.data.annotations.table import Category
from ciod_core.errors import ConfigError

ORDERS = "name, id, file, seedN (such as seed123) or a comma-separated list of all class names"


def order_categories(categories: Sequence[Category], order: str) -> tuple[Category, ...]:
    """Put the classes of a dataset into the order in which a plan counts them.

    Args:
        categories: the classes as the annotation file lists them.
        order: `name` alphabetical (ILYOLOX), `id` ascending category id (ERD), `file` as listed, `seedN` NumPy's
            legacy shuffle of the ascending ids with seed N (CL-DETR uses seed123), or all names separated by commas.

    Raises:
        ConfigError: the order is unknown or its list is not exactly the dataset's classes.
    """
    if order == "file":
        return tuple(categories)
    if order == "name":
        return tuple(sorted(categories, key=lambda category: category.name))
    by_id = sorted(categories, key=lambda category: category.id)
    if order == "id":
        return tuple(by_id)
    seed = re.fullmatch(r"seed([0-9]{1,9})", order)
    if seed:
        positions = list(range(len(by_id)))
        np.random.RandomState(int(seed[1])).shuffle(positions)
        return tuple(by_id[position] for position in positions)
    return _order_by_list(categories, order)


def split_names(text: str) -> list[str]:
    """The names of a comma-separated list."""
    return [name.strip() for name in text.split(",")]


def find_classes(named: Iterable[tuple[str, str]], categories: Sequence[Category]) -> tuple[Category, ...]:
    """Look classes up by their names.

    Args:
        named: pairs of where the name stands (flag, or file and field, for messages) and the name.
        categories: the classes of the dataset.

    Raises:
        ConfigError: a name that the dataset does not know, or one that comes twice.
    """
    by_name = {category.name: category for category in categories}
    found: dict[str, Category] = {}
    for where, name in named:
        if name not in by_name:
            close = closest_name(name, by_name)
            hint = f"did you mean {quoted(close)}?" if close else f"the classes are {', '.join(by_name)}"
            raise ConfigError(f"{where}: {quoted(name)} is not a class of the dataset; {hint}")
        if name in found:
            raise ConfigError(f"{where}: {name!r} is listed twice; list every class once")
        found[name] = by_name[name]
    return tuple(found.values())


def _order_by_list(categories: Sequence[Category], order: str) -> tuple[Category, ...]:
    names = split_names(order)
    if len(names) == 1 and len(categories) > 1:
        raise ConfigError(f"`order`: '{order}' is not an order; choose {ORDERS}")
    ordered = find_classes((("`order`", name) for name in names), categories)
    missing = [category.name for category in categories if category not in ordered]
    if missing:
        raise ConfigError(
            f"`order`: {len(names)} of {len(categories)} classes are listed, '{missing[0]}' is not; "
            "list every class once"
        )
    return ordered
