"""YAML is read strictly, soon, and within bounds."""

from __future__ import annotations

import pytest

from ciod_core.config.yaml import MOST_VALUES, parse_yaml

LAUGHS = "a0: &a0 [l, l, l, l, l, l, l, l, l]\n" + "".join(
    f"a{depth}: &a{depth} [{', '.join([f'*a{depth - 1}'] * 9)}]\n" for depth in range(1, 10)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{depth}: &a{depth} {{<<: [{', '.join([f'*a{depth - 1}'] * 9)}]}}\n" for depth in range(1, 10)
)


def test_aliases_repeat_what_they_name() -> None:
    text = "base: &base {epochs: 2, lr: [1, 2]}\nother: {<<: *base, epochs: 3}\nsame: *base"
    base = {"epochs": 2, "lr": [1, 2]}
    assert parse_yaml(text) == {"base": base, "other": {**base, "epochs": 3}, "same": base}


@pytest.mark.parametrize("text", [LAUGHS, MERGES])
def test_a_few_lines_do_not_stand_for_billions_of_values(text: str) -> None:
    with pytest.raises(ValueError, match=r"^more than 100,000 values, counting what aliases repeat at line 6$"):
        parse_yaml(text)


def test_values_are_counted_without_aliases_too() -> None:
    with pytest.raises(ValueError, match="more than"):
        parse_yaml(f"[{'a, ' * MOST_VALUES}]")


@pytest.mark.parametrize("text", ["&a [*a]", "a: &a {b: {c: *a}}"])
def test_an_alias_inside_what_it_repeats(text: str) -> None:
    with pytest.raises(ValueError, match=r"^an alias stands inside what it repeats at line 1$"):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 2000, "nested too deeply"),
        ("- " * 2000, "nested too deeply"),
        ("2020-13-45", "month must be in"),
        ("!!bool maybe", "a value cannot be read"),
        ("!!timestamp soon", "a value cannot be read"),
        (f"{'1:' * 3000}30.5", "a value cannot be read"),
        ("!!float one", "could not convert"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_what_no_value_can_be_made_of(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_integers_have_64_bits() -> None:
    assert parse_yaml("[999999999999999999, -999999999999999999]") == [10**18 - 1, 1 - 10**18]
    assert parse_yaml("9" * 5000) == "9" * 5000
