"""Class names that look alike are recognized, and told apart in messages."""

from __future__ import annotations

import pytest

from ciod_core.classes import class_table, closest_name, look_alikes, quoted, spelling
from ciod_core.errors import CheckpointError
from tests.helpers.class_names import CAFE, TWINS


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_look_alikes(twin: str) -> None:
    assert twin != CAFE and spelling(twin) == spelling(CAFE)
    assert closest_name(twin, ["tea", CAFE]) == CAFE
    (sentence,) = look_alikes(["tea", CAFE, "coffee", twin, CAFE])
    assert sentence.startswith(f"class {quoted(twin)} differs from 'café' by case, spacing or Unicode form alone; ")


def test_what_looks_different_is_different() -> None:
    assert look_alikes(["cafe", CAFE, "car", "cart", "1", "11", "stop", "stop", "ß", "s", "İ", "i", ""]) == []
    assert closest_name("kiwi", ["bus", "tram"]) is None


def test_names_are_told_apart() -> None:
    assert quoted(CAFE) == "'café'" and quoted("a b's") == repr("a b's")
    assert quoted(TWINS["two code points"]) == r"'cafe\u0301'" and quoted(TWINS["soft hyphen"]) == r"'ca\xadfé'"
    with pytest.raises(CheckpointError, match=r"its class 1 is 'cafe\\u0301', the experiment expects 'café' there"):
        class_table([[(TWINS["two code points"], 1)]]).require_prefix_of(class_table([[(CAFE, 1)]]), where="w")
