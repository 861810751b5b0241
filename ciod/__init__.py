"""The public Python API. Importing it is cheap: torch and the rest come with the first use of a name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ciod_core import __version__

if TYPE_CHECKING:
    from ciod.api import add_step, create_experiment, evaluate, export
    from ciod_core.config.schema import Config
    from ciod_core.inference.load import load
    from ciod_core.runs.train import train_step
    from ciod_core.teachers.import_weights import import_weights

__all__ = [
    "Config",
    "__version__",
    "add_step",
    "create_experiment",
    "evaluate",
    "export",
    "import_weights",
    "load",
    "train_step",
]

_MODULES = {
    "Config": "ciod_core.config.schema",
    "load": "ciod_core.inference.load",
    "train_step": "ciod_core.runs.train",
    "import_weights": "ciod_core.teachers.import_weights",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ciod' has no attribute '{name}'")
    value = getattr(import_module(_MODULES.get(name, "ciod.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
