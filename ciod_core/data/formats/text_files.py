"""Small text files that people and tools of all systems write: lists of images, YAML, labels."""

from __future__ import annotations

from pathlib import Path

from ciod_core.errors import DataError


def read_text(path: Path, what: str) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Args:
        path: the file.
        what: what the file should be, for messages.

    Raises:
        DataError: the file cannot be read or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore {what}") from None
    return decode_text(data, path)


def decode_text(data: bytes, path: Path) -> str:
    """The same for bytes already read.

    Raises:
        DataError: the bytes are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line} is not UTF-8 text; save the file as UTF-8") from None


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file without surrounding spaces, empty ones left out.

    Raises:
        DataError: the file cannot be read or is not UTF-8.
    """
    return [line.strip() for line in read_text(path, what).splitlines() if line.strip()]
