"""A frozen branch per step: the old network stays unchanged, and a new head beside the old ones learns the new classes.

Nothing is forgotten, because nothing old changes: old classes are detected bit for bit as before. The price is a head
more per step, features that were made for the old classes, and objects that two heads may detect.
"""

from __future__ import annotations

from ciod_core.methods.base import Method
from ciod_core.model.base import Detector


class FrozenBranch(Method):
    """Labels train the new head alone, without a teacher; replayed labels of old classes train nothing."""

    needs_new_classes = True

    def grow(self, student: Detector, num_new: int) -> None:
        """Append a branch for the new classes."""
        student.add_branch(num_new)
