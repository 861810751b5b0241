"""Rows of JSON text say what their numbers say, whichever rows are picked."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciod_core.data.annotations.json_rows import BLOCK, JsonRows, NumberField, encode_rows

WHOLE = st.integers(-(2**53), 2**53)


def parsed(rows: JsonRows) -> list[Any]:
    return json.loads(b"[" + b"".join(rows.blocks()) + b"]")


@given(st.lists(st.tuples(WHOLE, st.integers(-(2**40), 2**40)), max_size=30), st.integers(0, 6))
def test_numbers_read_back(values: list[tuple[int, int]], decimals: int) -> None:
    ids_N = np.array([value for value, _ in values], dtype=np.int64)
    scaled_N = np.array([value for _, value in values], dtype=np.int64)
    rows = encode_rows([NumberField('{"id":', ids_N), NumberField(',"x":', scaled_N, decimals)], "}")
    found = parsed(rows)
    assert [entry["id"] for entry in found] == ids_N.tolist()
    assert [entry["x"] for entry in found] == pytest.approx((scaled_N / 10**decimals).tolist(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0, 3, "0"),
        (1, 3, "0.001"),
        (-1, 3, "-0.001"),
        (1000, 3, "1"),
        (120, 1, "12"),
        (-12, 0, "-12"),
        (105, 2, "1.05"),
    ],
)
def test_numbers_are_written_without_needless_digits(value: int, decimals: int, text: str) -> None:
    rows = encode_rows([NumberField("", np.array([value, 99999]), decimals)], "")
    assert b"".join(rows.blocks()).split(b",")[0] == text.encode()


def test_more_rows_than_a_block_keep_their_order() -> None:
    values_N = np.arange(2 * BLOCK + 3) * 7 - 5
    rows = encode_rows([NumberField("[", values_N)], "]")
    assert parsed(rows) == [[value] for value in values_N.tolist()]


@given(st.lists(st.text(max_size=5), max_size=12), st.data())
def test_any_selection_in_any_order(texts: list[str], data: st.DataObject) -> None:
    rows = JsonRows.of_records([json.dumps(text).encode() for text in texts])
    assert parsed(rows) == texts
    mask_N = np.array([data.draw(st.booleans()) for _ in texts], dtype=np.bool_)
    selected = rows.select(mask_N)
    kept = [text for text, keep in zip(texts, mask_N, strict=True) if keep]
    assert parsed(selected) == kept
    again_N = np.array([data.draw(st.booleans()) for _ in kept], dtype=np.bool_)
    assert parsed(selected.select(again_N)) == [text for text, keep in zip(kept, again_N, strict=True) if keep]
