"""The images that an experiment has trained and evaluated on: what they were when they were first used.

`splits/images.json` has the size, modification time and SHA-256 of each. A use compares size and modification time;
`verify` reads all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.images.hashes import THREADS, HashedFile, HashedFiles, read_hashed_files, write_hashed_files
from ciod_core.errors import CheckpointError
from ciod_core.experiment.folder import SPLITS_NAME, Experiment
from ciod_core.files import MostBytes, sha256_of_file

IMAGES_NAME = "images.json"


class ChangedImage(NamedTuple):
    """An image that is not what it was.

    Attributes:
        path: as it is recorded, seen from the experiment's folder.
        before: as it was.
        now: as it is; None: it cannot be read.
    """

    path: str
    before: HashedFile
    now: HashedFile | None


def images_file(experiment: Experiment) -> Path:
    """Where the images are recorded, whether or not there are any yet."""
    return experiment.folder / SPLITS_NAME / IMAGES_NAME


def recorded_images(experiment: Experiment) -> HashedFiles:
    """The images by path, seen from the experiment's folder.

    Raises:
        CheckpointError: the record is damaged.
    """
    path = images_file(experiment)
    try:
        return read_hashed_files(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: the record of the images is damaged ({error}); restore it, or remove it to have the images "
            "recorded as they are now"
        ) from None


def check_images(experiment: Experiment, tables: Iterable[LocatedTable]) -> None:
    """Make sure that images are what they were when they were first used, by size and modification time.

    What is new, or has another modification time, is read and recorded; what is missing, the loader reports.

    Raises:
        CheckpointError: images were changed, or their record is damaged.
    """
    recorded, seen = recorded_images(experiment), dict(_stats(experiment, tables))
    unsure = [path for path, stat in seen.items() if not _is_as_recorded(recorded.get(path), stat)]
    if not unsure:
        return
    now = {path: found for path, found in hash_files(experiment, unsure) if found is not None}
    changed = [path for path, found in now.items() if path in recorded and recorded[path].sha256 != found.sha256]
    if changed:
        raise CheckpointError(
            f"{experiment.folder / changed[0]}: {len(changed)} of {len(seen)} images were changed since they were "
            "first used here, this is the first; restore them, or accept them with `accept_changes`"
        )
    record_images(experiment, now)


def record_images(experiment: Experiment, images: HashedFiles) -> None:
    """Record images, in the place of those that are recorded by the same paths."""
    with experiment.lock():
        write_hashed_files(images_file(experiment), recorded_images(experiment) | images)


def changed_images(experiment: Experiment, on_image: Callable[[int], None]) -> list[ChangedImage]:
    """Read all recorded images, and list those that are not what they were; raises as `recorded_images`.

    Args:
        experiment: the experiment.
        on_image: called with the number of further images that were read.
    """
    recorded, changed = recorded_images(experiment), []
    for path, found in hash_files(experiment, recorded):
        on_image(1)
        if found is None or found.sha256 != recorded[path].sha256:
            changed.append(ChangedImage(path, recorded[path], found))
    return changed


def hash_files(experiment: Experiment, paths: Iterable[str]) -> Iterator[tuple[str, HashedFile | None]]:
    """Paths and what the files are now; None for one that cannot be read."""

    def read(path: str) -> tuple[str, HashedFile | None]:
        try:
            stat = (experiment.folder / path).stat()
            digest = sha256_of_file(experiment.folder / path, MostBytes.IMAGE)
        except OSError:
            return path, None
        return path, HashedFile(stat.st_size, stat.st_mtime_ns, digest)

    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(read, paths)


def _stats(experiment: Experiment, tables: Iterable[LocatedTable]) -> Iterator[tuple[str, os.stat_result]]:
    root = f"{experiment.folder.resolve().as_posix()}/"
    for table, folder in tables:
        base = folder.resolve().as_posix()
        for name in table.file_names_I.tolist():
            # Resolving every single path would take longer than the look at it.
            path = f"{base}/{name}"
            try:
                yield path.removeprefix(root), os.stat(path)  # noqa: PTH116 - as above
            except OSError:
                continue


def _is_as_recorded(known: HashedFile | None, stat: os.stat_result) -> bool:
    return known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
