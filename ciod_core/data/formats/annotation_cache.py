"""A cache of checked annotations, keyed by the content of their file.

Reading and checking a file of COCO's size takes seconds, the same tables come back from here in a fraction of one. An
entry is a safetensors file of the table's columns and two NumPy files with their JSON text, which are mapped, not read;
their name is the SHA-256 and the size of the annotation file. To know that hash without reading 400 MB, a small note
per path remembers it for as long as size, times and inode of the file stay what they were. Nothing here is ever needed:
whatever goes wrong with the cache, the annotation file is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import safetensors
import safetensors.numpy

from ciod_core.data.annotations.json_rows import JsonRows
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.data.formats.coco import with_json
from ciod_core.files import atomic_path, atomic_write_json, sha256_of_file

CACHE_VARIABLE = "CIOD_CACHE_DIR"
# Raise this whenever the same file gives another table or other text.
CACHE_VERSION = "1"
SMALLEST_FILE = 4 * 2**20
LARGEST_CACHE = 4 * 2**30
# A file that was just written can change once more without a trace in its times.
SETTLED_AFTER_SECONDS = 2.0
_JSON_COLUMNS = ("image_json", "box_json")
_ARRAYS = tuple(
    field.name
    for field in fields(AnnotationTable)
    if field.name.endswith(("_I", "_N", "_N4")) or field.name == "offsets"
)


def cache_folder() -> Path:
    """Where the cache lies: $CIOD_CACHE_DIR, else the user's cache folder."""
    value = os.environ.get(CACHE_VARIABLE)
    return Path(value).expanduser() if value else Path(platformdirs.user_cache_path("ciod"))


def cached_table(path: Path, read: Callable[[Path], AnnotationTable]) -> AnnotationTable:
    """The table of an annotation file, from the cache where it holds this very content.

    A table of a large file carries its JSON text, whether it was read or comes from the cache.

    Args:
        path: the annotation file.
        read: reads and checks it.

    Raises:
        DataError: from `read`.
    """
    try:
        status = path.stat()
    except OSError:
        return read(path)
    if status.st_size < SMALLEST_FILE:
        return read(path)
    folder = cache_folder() / "annotations"
    note = folder / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"
    with suppress(OSError, EOFError, ValueError, KeyError, TypeError, AssertionError, safetensors.SafetensorError):
        sha256 = _remembered_hash(note, status)
        if sha256 is None and any(folder.glob(_entry_name("*", status.st_size))):
            sha256 = sha256_of_file(path)
            _remember_hash(note, status, sha256)
        if sha256 is not None:
            return replace(_load(folder / _entry_name(sha256, status.st_size)), path=path)
    table = with_json(read(path))
    with suppress(OSError):
        _save(table, folder / _entry_name(table.sha256, status.st_size))
        _remember_hash(note, status, table.sha256)
        _evict(folder)
    return table


def _entry_name(sha256: str, size: int) -> str:
    return f"{sha256}-{size}-{CACHE_VERSION}.safetensors"


def _fingerprint(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _remembered_hash(note: Path, status: os.stat_result) -> str | None:
    if not note.exists():
        return None
    remembered = json.loads(note.read_bytes())
    return str(remembered["sha256"]) if remembered["fingerprint"] == _fingerprint(status) else None


def _remember_hash(note: Path, status: os.stat_result, sha256: str) -> None:
    if time.time() - max(status.st_mtime, status.st_ctime) >= SETTLED_AFTER_SECONDS:
        atomic_write_json(note, {"fingerprint": _fingerprint(status), "sha256": sha256})


def _save(table: AnnotationTable, entry: Path) -> None:
    tensors = {name: getattr(table, name) for name in _ARRAYS if name != "file_names_I"}
    tensors["file_names"] = np.frombuffer("\0".join(table.file_names_I.tolist()).encode(), dtype=np.uint8)
    for name in _JSON_COLUMNS:
        rows: JsonRows = getattr(table, name)
        tensors[f"{name}.ends"] = rows.ends_N
        with atomic_path(_text_file(entry, name)) as temporary:
            np.save(temporary, rows.text)
    metadata = {
        "categories": json.dumps(table.categories),
        "counts": json.dumps([table.clipped_boxes, table.dropped_boxes]),
        "sha256": table.sha256,
    }
    with atomic_path(entry) as temporary:
        safetensors.numpy.save_file(tensors, temporary, metadata)


def _text_file(entry: Path, column: str) -> Path:
    return entry.with_suffix(f".{column}.npy")


def _load(entry: Path) -> AnnotationTable:
    with safetensors.safe_open(entry, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
        metadata = file.metadata()
    clipped, dropped = json.loads(metadata["counts"])
    columns: dict[str, Any] = {name: tensors[name] for name in _ARRAYS if name != "file_names_I"}
    for name in _JSON_COLUMNS:
        columns[name] = JsonRows.of(np.load(_text_file(entry, name), mmap_mode="r"), tensors[f"{name}.ends"])
    os.utime(entry)  # the least recently used entries are the first to go
    return AnnotationTable(
        **columns,
        file_names_I=np.array(tensors["file_names"].tobytes().decode().split("\0"), dtype=np.str_),
        categories=tuple(Category(*category) for category in json.loads(metadata["categories"])),
        sha256=metadata["sha256"],
        clipped_boxes=clipped,
        dropped_boxes=dropped,
    )


def _evict(folder: Path) -> None:
    """Remove the entries that were not used for longest until the rest fits."""
    entries = sorted(folder.glob("*.safetensors"), key=lambda entry: entry.stat().st_mtime, reverse=True)
    total = 0
    for entry in entries:
        files = [entry, *(_text_file(entry, name) for name in _JSON_COLUMNS)]
        total += sum(file.stat().st_size for file in files if file.exists())
        if total > LARGEST_CACHE:
            for file in files:
                file.unlink(missing_ok=True)
