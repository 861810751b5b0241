"""Every method reads the sections of the configuration that it is said to read, and no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import pytest

from ciod_core.config.schema import METHOD_NAMES, Config, MethodConfig
from ciod_core.methods import METHOD_SECTIONS, build_method, unread_sections


def build_from(method: str, sections: frozenset[str]) -> None:
    config = {name: getattr(Config(), name) for name in sections}
    build_method(SimpleNamespace(method=MethodConfig(name=method), **config))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", get_args(METHOD_NAMES))
def test_a_method_reads_its_own_sections(method: str) -> None:
    sections = METHOD_SECTIONS[method]
    build_from(method, sections)
    for section in sections:
        with pytest.raises(AttributeError, match=section):
            build_from(method, sections - {section})


def test_what_belongs_to_other_methods() -> None:
    assert unread_sections("lwf") == {"resampler", "distiller", "rilod", "sid", "erd"}
    assert unread_sections("crs-ckd") == {"lwf", "rilod", "sid", "erd"}
    assert unread_sections(None) == unread_sections("lwf") | {"lwf"}
