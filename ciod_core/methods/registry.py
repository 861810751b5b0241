"""Continual-learning methods by name. A new method is a file and a line here. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ciod_core.config.schema import Config, Section
    from ciod_core.methods.base import Method


class MethodEntry(NamedTuple):
    """Where a method is, as `module:Class`, and one line about it for help texts."""

    location: str
    description: str


AUTO = "auto"

# What `auto` chooses from.
DISTILLATION, BRANCH = "crs-ckd", "frozen-branch"

# Values of `method.name`, in the order in which they are listed.
METHODS: dict[str, MethodEntry] = {
    # Decided before a step trains, see `ciod_core.runs.choice`; until then it selects boxes like crs-ckd.
    AUTO: MethodEntry("ciod_core.methods.crs_ckd:CrsCkd", "crs-ckd or frozen-branch, whichever suits the new images"),
    "crs-ckd": MethodEntry("ciod_core.methods.crs_ckd:CrsCkd", "center re-sampling and collaborative distillation"),
    "erd": MethodEntry("ciod_core.methods.erd:Erd", "elastic response distillation"),
    "sid": MethodEntry("ciod_core.methods.sid:Sid", "selective and inter-related distillation"),
    "rilod": MethodEntry("ciod_core.methods.rilod:Rilod", "logits, boxes and features of the teacher"),
    "lwf": MethodEntry("ciod_core.methods.lwf:Lwf", "learning without forgetting: logits of all anchor points"),
    "frozen-branch": MethodEntry("ciod_core.methods.branches:FrozenBranch", "a new branch beside a frozen detector"),
    "held-branch": MethodEntry("ciod_core.methods.branches:HeldBranch", "a new head; the old one is held in place"),
    "pseudo-label": MethodEntry("ciod_core.methods.pseudo_label:PseudoLabel", "the teacher's boxes as ground truth"),
    "finetune": MethodEntry("ciod_core.methods.finetune:Finetune", "labels of the new classes alone"),
    # Joint training differs in its data, the labels of all classes so far, and not in its losses.
    "joint": MethodEntry("ciod_core.methods.finetune:Finetune", "labels of all classes so far: the upper bound"),
}


# Trains no step: it is what `consolidate` does with a detector that has branches.
CONSOLIDATION = "ciod_core.methods.consolidation:Consolidation"


def method_class(name: str) -> type[Method]:
    """The class of a method; imports its module."""
    return _class_at(METHODS[name].location)


def build_method(config: Config) -> Method:
    """The method that `method.name` names, with its own settings."""
    method = method_class(config.method.name)
    return method(config.section(method.section, method.Config), config.resampler, config.method)


def with_own_settings(config: Config, settings: Mapping[str, object]) -> Config:
    """The configuration with these settings in the section of its method."""
    method = method_class(config.method.name)
    if not settings:
        return config
    section = config.section(method.section, method.Config)
    return config.model_copy(update={method.section: section.model_copy(update=settings)})


def method_sections() -> dict[str, type[Section]]:
    """The methods' own sections of the configuration, by name; imports all methods."""
    methods = [*map(method_class, METHODS), _class_at(CONSOLIDATION)]
    return {method.section: method.Config for method in methods if method.section}


def reads(name: str | None, section: str, field: str) -> bool:
    """Whether a run with this method reads a setting; without a teacher, which is None, it is plain training."""
    if section == "method" and field != "name":
        return name is not None and bool(method_class(name).needs)
    return section not in unread_sections(name)


def unread_sections(name: str | None) -> frozenset[str]:
    """The sections that only other methods read; without a teacher, which is None, those of all methods."""
    read: set[str] = set()
    for possible in () if name is None else (DISTILLATION, BRANCH) if name == AUTO else (name,):
        method = method_class(possible)
        read |= {method.section} | ({"resampler"} if "selected" in method.needs else set())
    return frozenset({"resampler", *method_sections()} - read)


def _class_at(location: str) -> type[Method]:
    module, _, attribute = location.partition(":")
    method: type[Method] = getattr(import_module(module), attribute)
    return method
