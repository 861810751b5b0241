"""Faults in JSON documents, as hypothesis draws them."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

NAN, INF = float("nan"), float("inf")

odd_numbers = st.sampled_from(
    [
        0,
        -1,
        1,
        2,
        40,
        2**31,
        2**53,
        2**53 + 1,
        -(2**63),
        2**64,
        10**400,
        0.5,
        -0.0,
        -3.5,
        1e308,
        -1e308,
        1e-320,
        NAN,
        INF,
    ]
)
odd_texts = st.sampled_from(["", " ", "\0", "..", "../a", "/a", "C:\\a", "a\nb", "\ud800", "ü", "a" * 5000, "NaN", "1"])
odd_values = st.one_of(
    odd_numbers,
    odd_texts,
    st.none(),
    st.booleans(),
    st.just([]),
    st.just({}),
    st.lists(odd_numbers, max_size=6),
    st.recursive(
        st.integers(), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner)
    ),
)
existing_ids = st.sampled_from([30, 7, 12, 5, 0, 9, 2, 18, 3])  # ids of images, boxes and classes, mixed up


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything below a JSON value."""
    if isinstance(node, dict):
        children = list(node.items())
    elif isinstance(node, list):
        children = list(enumerate(node))
    else:
        return [path]
    return [path, *(found for key, child in children for found in places(child, (*path, key)))]


def damage(data: st.DataObject, content: dict[str, Any]) -> None:
    """Do one thing to the content that somebody's export script has done before."""
    found = [path for path in places(content) if path]
    leaves = [path for path in found if len(path) > 2]
    # Most faults leave the types right: those get past the parser.
    place = data.draw(st.sampled_from(leaves if leaves and data.draw(st.integers(0, 9)) else found))
    parent: Any = content
    for key in place[:-1]:
        parent = parent[key]
    value = parent[place[-1]]
    match data.draw(st.sampled_from(["alike"] * 6 + ["id"] * 4 + ["repeat"] * 2 + ["replace", "remove", "add"])):
        case "alike" if isinstance(value, float | int):
            parent[place[-1]] = data.draw(odd_numbers)
        case "alike" if isinstance(value, str):
            parent[place[-1]] = data.draw(odd_texts)
        case "id" if isinstance(value, int):
            parent[place[-1]] = data.draw(existing_ids)
        case "repeat" if isinstance(parent, list):
            parent.append(copy.deepcopy(value))
        case "replace":
            parent[place[-1]] = data.draw(odd_values)
        case "remove":
            del parent[place[-1]]
        case "add" if isinstance(parent, dict):
            parent[data.draw(st.sampled_from(["id", "bbox", "iscrowd", "area", "extra"]))] = data.draw(odd_values)
