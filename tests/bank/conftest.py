"""The trained experiment of the commands' tests serves here too."""

from tests.cli.conftest import ciod, own_copy, trained

__all__ = ["ciod", "own_copy", "trained"]
