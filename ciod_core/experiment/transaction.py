"""Changes of an experiment that take effect together: staged files and the manifest that names them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.manifest import ExperimentManifest

Change = Callable[[ExperimentManifest | None], ExperimentManifest]


class Transaction:
    """Files are written below `staging`, under the names that they will have in the experiment; `commit` moves them.

    Attributes:
        experiment: the experiment, which may not exist yet.
        staging: a temporary folder inside it.
        made: the folders that were made for it, innermost first.
    """

    def __init__(self, experiment: Experiment, staging: Path, made: Sequence[Path]) -> None:
        self.experiment = experiment
        self.staging = staging / "new"
        self.made = made
        self.committed = False
        self._replaced = staging / "replaced"

    def stage(self, name: str) -> Path:
        """Where to write the file that will be `name`, relative to the experiment's folder."""
        path = self.staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def commit(self, change: Change, *, replaces: Sequence[Path] = ()) -> ExperimentManifest:
        """Move the staged files to their places and write the manifest, all under the lock; on failure undo it.

        Args:
            change: makes the new manifest from the current one; None where there is no experiment yet.
            replaces: files that no longer belong to the experiment.

        Raises:
            CiodError: another process holds the lock.
            OSError: the folder cannot be written.
        """
        exists = self.experiment.manifest_path.is_file()
        # No other command can have opened an experiment that does not exist yet, so it needs no lock.
        with self.experiment.lock() if exists else nullcontext(), ExitStack() as undo:
            manifest = change(self.experiment.read() if exists else None)
            for path in replaces:
                _move(path, self._replaced / path.name, undo)
            for path in sorted(self.staging.rglob("*")):
                if path.is_file():
                    _move(path, self.experiment.folder / path.relative_to(self.staging), undo)
            self.experiment.write(manifest)
            undo.pop_all()
        self.committed = True
        return manifest


@contextmanager
def transaction(experiment: Experiment) -> Iterator[Transaction]:
    """Stage files for an experiment. What is not committed is gone afterwards, folders that were made included.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = experiment.folder
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    staged: Transaction | None = None
    try:
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder) as temporary:
            staged = Transaction(experiment, Path(temporary), made)
            yield staged
    finally:
        if staged is None or not staged.committed:
            remove_empty(made)


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those folders that are empty: a user's files never go."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _move(source: Path, target: Path, undo: ExitStack) -> None:
    if not target.parent.exists():
        target.parent.mkdir(parents=True)
        undo.callback(remove_empty, [target.parent])
    source.rename(target)
    undo.callback(target.rename, source)
