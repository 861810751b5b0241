"""The continual-learning methods, by name. Adding one is a file here and two lines below."""

from __future__ import annotations

from ciod_core.config.schema import Config
from ciod_core.methods.base import Method
from ciod_core.methods.crs_ckd import crs_ckd
from ciod_core.methods.erd import erd
from ciod_core.methods.finetune import finetune
from ciod_core.methods.frozen_branch import frozen_branch
from ciod_core.methods.lwf import lwf
from ciod_core.methods.pseudo_label import pseudo_label
from ciod_core.methods.rilod import rilod
from ciod_core.methods.sid import sid

# The sections of the configuration that `build_method` reads for each; all others matter to every run.
METHOD_SECTIONS: dict[str, frozenset[str]] = {
    "crs-ckd": frozenset({"resampler", "distiller"}),
    "erd": frozenset({"resampler", "erd"}),
    "sid": frozenset({"resampler", "sid"}),
    "rilod": frozenset({"resampler", "rilod"}),
    "lwf": frozenset({"lwf"}),
    "pseudo-label": frozenset({"resampler"}),
    "frozen-branch": frozenset(),
    "finetune": frozenset(),
    "joint": frozenset(),
}


def build_method(config: Config) -> Method:
    """The method that `method.name` asks for."""
    match config.method.name:
        case "crs-ckd":
            return crs_ckd(config.resampler, config.distiller)
        case "erd":
            return erd(config.erd, ground_truth_iou=config.resampler.ground_truth_iou)
        case "sid":
            return sid(config.resampler, config.sid)
        case "rilod":
            return rilod(config.resampler, config.rilod)
        case "lwf":
            return lwf(config.lwf)
        case "pseudo-label":
            return pseudo_label(config.resampler)
        case "frozen-branch":
            return frozen_branch()
        case "finetune" | "joint":
            # Joint training differs in its data, the labels of all classes so far, and not in its loss.
            return finetune()


def unread_sections(method: str | None) -> frozenset[str]:
    """The sections that only other methods read. Without a teacher, which is None, no method has anything to read."""
    read = METHOD_SECTIONS[method] if method else frozenset()
    return frozenset[str]().union(*METHOD_SECTIONS.values()) - read
