"""SHA-256 of image files, computed once for each path, size and modification time."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.images.files import image_path, there_is
from ciod_core.errors import DataError
from ciod_core.files import MostBytes, atomic_write_bytes, read_bytes, sha256_of_file

# A file that changed a moment ago may change again without its modification time telling so.
SETTLED_NS = 2_000_000_000
SECONDS_BETWEEN_WRITES = 60.0
THREADS = 4
FORMAT_VERSION = 2


class HashedFile(NamedTuple):
    """A file as it was when it was hashed."""

    size: int
    mtime_ns: int
    sha256: str


HashedFiles = dict[str, HashedFile]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    files: HashedFiles
    checksum: str
    format_version: int


class ImageHashes:
    """Hashes of image files, remembered in memory and, where there is a cache file, from one command to the next.

    A file is read again when its size or modification time differ from those noted. The cache file only saves time: a
    damaged one counts as empty, and one that cannot be written is not written.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache
        self._entries = HashedFiles()
        if cache is not None:
            with suppress(OSError, ValueError):
                self._entries = read_hashed_files(cache)
        self._unsaved = False
        self._saved_at = time.monotonic()

    def cached(self, path: Path) -> str | None:
        """The hash of a file as far as it is known without reading the file; None where it is not.

        Raises:
            DataError: the file is missing or out of reach.
        """
        return self._lookup(path, _stat(path))

    def get(self, path: Path) -> str:
        """The hash of a file, 64 hexadecimal digits.

        Raises:
            DataError: the file cannot be read.
        """
        stat = _stat(path)
        known = self._lookup(path, stat)
        if known is not None:
            return known
        try:
            sha256 = sha256_of_file(path, MostBytes.IMAGE)
        except OSError as error:
            raise _unreadable(path, error) from None
        if time.time_ns() - stat.st_mtime_ns > SETTLED_NS:
            self._entries[_key(path)] = HashedFile(stat.st_size, stat.st_mtime_ns, sha256)
            self._unsaved = True
        if time.monotonic() - self._saved_at > SECONDS_BETWEEN_WRITES:
            self.save()
        return sha256

    def for_table(self, table: AnnotationTable, image_dir: Path, *, skip_unreadable: bool = False) -> tuple[str, ...]:
        """The hash of every image of a table, in its order; with `skip_unreadable` the path of one that has none.

        Raises:
            DataError: a file cannot be read.
        """

        def get(path: Path) -> str:
            try:
                return self.get(path)
            except DataError:
                if skip_unreadable:
                    return str(path)
                raise

        with ThreadPoolExecutor(THREADS) as pool:
            paths = (image_path(image_dir, name, table.path) for name in table.file_names_I.tolist())
            hashes = tuple(pool.map(get, paths))
        self.save()
        return hashes

    def save(self) -> None:
        """Write the cache file, if there is one and anything new to write."""
        self._saved_at = time.monotonic()
        if self._cache is not None and self._unsaved:
            with suppress(OSError):
                write_hashed_files(self._cache, dict(self._entries))
                self._unsaved = False

    def _lookup(self, path: Path, stat: os.stat_result) -> str | None:
        entry = self._entries.get(_key(path))
        if entry is None or (entry.size, entry.mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            return None
        return entry.sha256


def read_hashed_files(path: Path) -> HashedFiles:
    """Read what `write_hashed_files` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or of another version.
    """
    document = msgspec.json.decode(read_bytes(path, MostBytes.TEXT), type=_Document)
    if document.format_version != FORMAT_VERSION or document.checksum != _checksum(document.files):
        raise ValueError("its content does not have its checksum")
    return document.files


def write_hashed_files(path: Path, files: HashedFiles) -> None:
    """Write the hashes of files, by their paths."""
    atomic_write_bytes(path, msgspec.json.encode(_Document(files, _checksum(files), FORMAT_VERSION)))


def _checksum(files: HashedFiles) -> str:
    return hashlib.sha256(msgspec.json.encode(files)).hexdigest()


def _key(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would look at every folder on the way.


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: the image cannot be read ({error.strerror}); restore it{there_is(path)}")
