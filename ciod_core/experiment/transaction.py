"""Changes of an experiment that take effect together: staged files and the manifest that names them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ciod_core.errors import CiodError
from ciod_core.experiment.folder import SPLITS_NAME, STATE_FILE, TRAINING_LOCK, Experiment
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.files import MostBytes, atomic_write_json, parse_json, read_bytes, sha256_of_file
from ciod_core.runtime.interruption import uninterrupted
from ciod_core.temporaries import JOURNAL_NAME, dead_in, remove_dead, temporary_folder

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
        # The moves of a commit, by which one that was killed half way is undone.
        self._journal = staging / JOURNAL_NAME

    def stage(self, name: str) -> Path:
        """Where to write the file that will be `name`, relative to the experiment's folder."""
        path = self.staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def commit(self, change: Change, *, replaces: Sequence[Path] = ()) -> ExperimentManifest:
        """Move the staged files to their places and write the manifest, all under the lock; on failure undo it.

        A failure after the manifest was written undoes nothing: the commit is done.

        Args:
            change: makes the new manifest from the current one; None where there is no experiment yet.
            replaces: files that no longer belong to the experiment.

        Raises:
            CiodError: another process holds the lock.
            OSError: the folder cannot be written.
        """
        exists = self.experiment.manifest_path.is_file()
        # No other command can have opened an experiment that does not exist yet, so it needs no lock.
        with self.experiment.lock() if exists else nullcontext():
            manifest = change(self.experiment.read() if exists else None)
            folder = self.experiment.folder
            moves = [(path, self._replaced / path.name) for path in replaces]
            staged = sorted(path for path in self.staging.rglob("*") if path.is_file())
            moves += [(path, folder / path.relative_to(self.staging)) for path in staged]
            names = [[path.relative_to(folder).as_posix() for path in move] for move in moves]
            atomic_write_json(self._journal, names)
            try:
                for source, target in moves:
                    _move(source, target)
                self.experiment.write(manifest)
            except BaseException:
                # Of a failure or an interruption nobody knows whether it came before the manifest was written or after.
                with uninterrupted():
                    _undo(self.experiment, names)
                raise
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
        with temporary_folder(folder) as temporary:
            staged = Transaction(experiment, temporary, made)
            yield staged
    finally:
        if staged is None or not staged.committed:
            remove_empty(made)


def recover(experiment: Experiment) -> None:
    """Remove what killed commands left in the folder, and undo what they had not finished.

    Raises:
        OSError: the folder cannot be written.
        CiodError: what a killed command replaced cannot be put back.
    """
    for path in dead_in(experiment.folder):
        journal = path / JOURNAL_NAME
        if journal.is_file():
            _undo(experiment, parse_json(read_bytes(journal, MostBytes.TEXT)))
            journal.unlink()
    runs = [lock.parent for lock in experiment.folder.glob(f"*/{TRAINING_LOCK}")]
    for folder in (experiment.folder / SPLITS_NAME, *runs, *((run / STATE_FILE).parent for run in runs)):
        remove_dead(folder)


def _undo(experiment: Experiment, names: list[list[str]]) -> None:
    """Move the files of a commit back, unless the manifest knows them all: with it, the commit was done."""
    moves = [(experiment.folder / source, experiment.folder / target) for source, target in names]
    known = experiment.manifest_path.read_text(encoding="utf-8") if experiment.manifest_path.is_file() else ""
    new = [target for _, target in moves if target.is_relative_to(experiment.folder / SPLITS_NAME)]
    if all(target.is_file() and sha256_of_file(target) in known for target in new):
        return
    for before, now in reversed(moves):
        if now.exists() and before.exists():
            raise CiodError(
                f"{now}: a killed command replaced {before} with it, and both are there; move one of them away"
            )
        if now.exists():
            now.rename(before)
        # It may have been made, and nothing moved there yet. What it replaced comes back later.
        remove_empty([now.parent])


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those folders that are empty: a user's files never go."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
