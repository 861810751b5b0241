"""Every method reads the sections of the configuration that it is said to read, and no other."""

from __future__ import annotations

import pytest

from ciod_core.config.schema import Config, MethodConfig, Section
from ciod_core.methods.registry import METHODS, build_method, method_class, method_sections, reads, unread_sections


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_built_from_its_own_section(name: str) -> None:
    section = method_class(name).section
    if section:
        kind = method_class(name).Config
        other = {field: 0.125 for field, value in kind() if isinstance(value, float)}
        changed = kind(**(other or {"selection": "resampler"}))
        built = build_method(Config(method=MethodConfig(name=name), **{section: changed}))
        assert built.config == changed != kind()
    else:
        assert build_method(Config(method=MethodConfig(name=name))).config == Section()


def test_names_of_sections() -> None:
    own = ["distiller", "erd", "sid", "rilod", "lwf", "branch", "pseudo_label", "consolidation"]
    assert list(method_sections()) == own


def test_what_belongs_to_other_methods() -> None:
    assert unread_sections("lwf") == {"distiller", "rilod", "sid", "erd", "branch", "pseudo_label", "consolidation"}
    assert unread_sections("crs-ckd") == {"lwf", "rilod", "sid", "erd", "branch", "pseudo_label", "consolidation"}
    assert unread_sections("erd") == {"distiller", "lwf", "rilod", "sid", "branch", "pseudo_label", "consolidation"}
    assert unread_sections("frozen-branch") == unread_sections("held-branch") == unread_sections(None) - {"branch"}
    assert unread_sections(None) == unread_sections("lwf") | {"lwf", "resampler"} == unread_sections("finetune")


def test_options_of_all_methods_are_read_by_those_with_a_teacher() -> None:
    taught = [name for name in METHODS if reads(name, "method", "batch_norm")]
    assert taught == ["auto", "crs-ckd", "erd", "sid", "rilod", "lwf", "held-branch", "pseudo-label"]
    assert not reads(None, "method", "trunk_balance") and reads(None, "method", "name")
    assert reads("finetune", "training", "lr") and not reads("finetune", "erd", "num_std")
