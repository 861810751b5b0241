"""The exceptions that reach a user. Each carries the exit code the command line ends with.

A message says what is wrong, where (file and field) and what to do, in one line.
"""


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
