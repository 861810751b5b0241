"""The exceptions that reach a user. Each carries the exit code the command line ends with.

A message says what is wrong, where (file and field) and what to do, in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MOST_NAMES = 5


class CiodError(Exception):
    """Something failed while running; base of every error meant for a user's eyes."""

    exit_code = 1


class ConfigError(CiodError):
    """A flag, a configuration key or a plan that cannot be used."""

    exit_code = 2


class DataError(CiodError):
    """Annotations or images that are missing, broken or contradict themselves."""

    exit_code = 3


class CheckpointError(CiodError):
    """Weights or a manifest that are damaged or do not belong where they are used."""

    exit_code = 4


class ExportError(CiodError):
    """An exported model that could not be written or did not answer like the original."""

    exit_code = 5


def listed(names: Sequence[str]) -> str:
    """Names for a message: the first few, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:MOST_NAMES])} and {more} more"


def did_you_mean(name: object, known: Iterable[str], *, otherwise: str = "") -> str:
    """The remedy for a name that is not known: the known name closest to it, else all known names.

    Args:
        name: what was given.
        known: the names that there are.
        otherwise: the remedy where no known name is close; empty lists the known names.
    """
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean '{close[0]}'?" if close else otherwise or f"choose from {', '.join(names)}"
