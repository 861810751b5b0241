"""A frozen branch per step: the old network stays as it is, and a new head beside its own learns the new classes.

Nothing can be forgotten, because nothing old changes: the old classes are detected bit for bit as before. The price is
a head more per step, features that were made for the old classes, and objects that two heads may name.
"""

from __future__ import annotations

from ciod_core.methods.base import Method
from ciod_core.methods.supervised import supervised
from ciod_core.model.detector import Detector


def frozen_branch() -> Method:
    """Labels teach the new head alone; no teacher is asked.

    Replayed labels of old classes go to the old heads, which nothing moves; the new head learns what is not new.
    """
    return Method(selection=None, transfer=supervised, grow=Detector.add_branch)
