"""An experiment on disk: one folder, its manifest, its step files and its runs.

    experiment.json                  the manifest, written atomically under a lock
    splits/step1.train.json, …       plain COCO JSON
    step1.safetensors, …             what users pass as a teacher
    step1/                           what one run leaves beside its weights

`experiment.create` and `experiment.add_step` make one; this module opens, reads and updates it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from ciod_core.config.schema import MethodConfig
from ciod_core.data.images.hashes import ImageHashes
from ciod_core.errors import CheckpointError, CiodError, ConfigError, listed
from ciod_core.experiment.entries import FileRecord, RunKind, RunRecord
from ciod_core.experiment.manifest import ExperimentManifest, manifest_text, read_manifest
from ciod_core.files import atomic_write_text, sha256_of_file, weights_file
from ciod_core.locks import HeldError, lock

MANIFEST_NAME = "experiment.json"
SPLITS_NAME = "splits"
DEFAULT_METHOD = MethodConfig().name
WEIGHTS_KEY = "weights"
BANK_MARK = ".knowledge"
HASHES_NAME = ".image-hashes.json"

LOCK_NAME = ".experiment.lock"
# In the folder of a run: the lock of the process that trains it, and what an interrupted one continues from.
TRAINING_LOCK = ".training.lock"
STATE_FILE = Path("state") / "last.safetensors"
PREVIOUS_STATE_FILE = Path("state") / "previous.safetensors"
_LOCK_SECONDS = 30.0
_RESERVED_RUN_NAMES = (SPLITS_NAME, "data")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Teacher(NamedTuple):
    """Weights that passed their hash check; `run` is None when no run of this experiment made them."""

    path: Path
    sha256: str
    run: RunRecord | None


class Experiment:
    """A folder with an `experiment.json`. It holds the paths; `read` returns the manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def open(cls, folder: Path, *, edited: bool = False) -> Experiment:
        """Open the experiment in `folder` (or that an `experiment.json` belongs to).

        Args:
            folder: the experiment's.
            edited: also where somebody has edited the manifest.

        Raises:
            ConfigError: when there is none.
            CheckpointError: when its manifest is damaged.
        """
        folder = folder.parent if folder.name == MANIFEST_NAME else folder
        if not (folder / MANIFEST_NAME).is_file():
            raise ConfigError(f"{folder}: no experiment here ({MANIFEST_NAME} is missing); make one with 'ciod split'")
        experiment = cls(folder)
        read_manifest(experiment.manifest_path, edited=edited)
        return experiment

    @classmethod
    def find(
        cls,
        explicit: Path | None = None,
        teacher: Path | None = None,
        cwd: Path | None = None,
        *,
        edited: bool = False,
    ) -> Experiment:
        """The experiment a command means: the explicit one, else the nearest folder upwards, else the teacher's.

        Raises:
            ConfigError: when none of the three has an `experiment.json`.
            CheckpointError: when none has, and the teacher is a file of another program.
        """
        if explicit is not None:
            return cls.open(explicit, edited=edited)
        here = (cwd or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / MANIFEST_NAME).is_file():
                return cls.open(folder, edited=edited)
        if teacher is not None and (teacher.resolve().parent / MANIFEST_NAME).is_file():
            return cls.open(teacher.parent)
        if teacher is not None:
            # Imported here: it takes torch, which commands that only read an experiment do without.
            from ciod_core.model.checkpoint import refuse_foreign

            refuse_foreign(teacher)
        raise ConfigError(
            f"no experiment given, and none found in {here} or above it; pass `experiment`, make one with "
            "'ciod split', or begin one with `data`"
        )

    @property
    def manifest_path(self) -> Path:
        """`experiment.json`."""
        return self.folder / MANIFEST_NAME

    def read(self) -> ExperimentManifest:
        """Read and check the manifest. An operation reads it once and passes it on.

        Raises:
            CheckpointError: it is damaged, or a newer version wrote it.
        """
        return read_manifest(self.manifest_path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from changing the experiment.

        Raises:
            CiodError: another process holds the lock for half a minute, there are none, or the experiment has gone.
        """
        if not self.manifest_path.is_file():  # a lock would make its folder anew
            raise CiodError(f"{self.folder}: the experiment is no longer there; was it moved, removed or unmounted?")
        with ExitStack() as stack:
            try:
                stack.enter_context(lock(self.folder / LOCK_NAME, wait=_LOCK_SECONDS))
            except HeldError:
                raise CiodError(
                    f"{self.folder / LOCK_NAME}: another ciod process has held the lock for {_LOCK_SECONDS:.0f} s; "
                    "wait for it or end it"
                ) from None
            yield

    def was_killed(self, run: RunRecord) -> bool:
        """Whether a run passes for running, and no process trains it any more: none holds its lock."""
        path = self.run_folder(run.name) / TRAINING_LOCK
        if run.status != "running" or not path.exists():
            return run.status == "running"
        try:
            with lock(path):
                return True
        except (HeldError, CiodError, OSError):
            # It trains; or nobody knows: a file system without locks, or a folder of somebody else.
            return False

    def write(self, manifest: ExperimentManifest) -> None:
        """Replace the manifest; the caller holds the lock."""
        atomic_write_text(self.manifest_path, manifest_text(manifest))

    def update(self, change: Callable[[ExperimentManifest], ExperimentManifest]) -> ExperimentManifest:
        """Read, change and write the manifest under the lock; raises as `lock`."""
        with self.lock():
            manifest = change(self.read())
            self.write(manifest)
            return manifest

    def put_run(self, record: RunRecord) -> None:
        """Add a run to the manifest, or replace the one of the same name."""
        self.update(lambda manifest: manifest.with_run(record))

    def record_output(self, name: str, key: str, output: FileRecord) -> None:
        """Note one more file that was made from run `name`."""

        def change(manifest: ExperimentManifest) -> ExperimentManifest:
            run = manifest.find_run(name)
            if run is None:
                return manifest
            return manifest.with_run(run.model_copy(update={"outputs": {**run.outputs, key: output}}))

        self.update(change)

    def verified_split(self, record: FileRecord) -> Path:
        """The path of a step's file or of the dataset's; raises as `verified`."""
        return self.verified(record, "the split was made", "restore it or split the dataset into a new experiment")

    def weights_path(self, run_name: str) -> Path:
        """Where the weights of a run lie, whether or not they exist yet."""
        return self.folder / f"{run_name}.safetensors"

    def knowledge_path(self, name: str) -> Path:
        """Where the knowledge bank of a step (`step2`) or of a run lies by default, whether or not it exists yet."""
        return self.folder / f"{name}{BANK_MARK}.safetensors"

    def image_hashes(self) -> ImageHashes:
        """The hashes of image files, cached in this experiment."""
        return ImageHashes(self.folder / HASHES_NAME)

    def run_folder(self, run_name: str) -> Path:
        """The folder of a run's other files, whether or not it exists yet."""
        return self.folder / run_name

    def has_state(self, run_name: str) -> bool:
        """Whether a run left a state to continue from."""
        return any((self.run_folder(run_name) / file).exists() for file in (STATE_FILE, PREVIOUS_STATE_FILE))

    def resolve_teacher(self, teacher: str | Path) -> Teacher:
        """Find a teacher by run name or path and verify that its file is the one its run wrote.

        Raises:
            ConfigError: neither a run nor a file.
            CheckpointError: unfinished run or changed file.
        """
        manifest = self.read()
        path = weights_file(Path(teacher))
        run = manifest.find_run(str(teacher)) if not path.is_file() else self._run_of(path, manifest)
        if run is not None:
            path = self._verified_weights(run)
        elif not path.is_file():
            names = listed([run.name for run in manifest.runs]) or "none yet"
            raise ConfigError(f"{teacher}: no such weights file, and no run of that name in {self.folder} ({names})")
        return Teacher(path, run.outputs[WEIGHTS_KEY].sha256 if run else sha256_of_file(path), run)

    def _run_of(self, path: Path, manifest: ExperimentManifest) -> RunRecord | None:
        def weights_of(run: RunRecord) -> Path:
            record = run.outputs.get(WEIGHTS_KEY)
            return record.locate(self.folder) if record else self.weights_path(run.name)

        resolved = path.resolve()
        return next((run for run in manifest.runs if weights_of(run).resolve() == resolved), None)

    def _verified_weights(self, run: RunRecord) -> Path:
        record = run.outputs.get(WEIGHTS_KEY)
        if record is None:
            raise CheckpointError(
                f"{self.folder}: run '{run.name}' has no weights yet (it is {run.status}); finish it first, "
                "for example with `resume`"
            )
        return self.verified(record, f"run '{run.name}' wrote it", "restore it or train that run again")

    def verified(self, record: FileRecord, when: str, remedy: str) -> Path:
        """The path of a recorded file, once its content is known to be what was recorded.

        Args:
            record: a file of this experiment's manifest.
            when: what wrote it, for the message.
            remedy: what to do, for the message.

        Raises:
            CheckpointError: the file is missing or was changed.
        """
        path = record.locate(self.folder)
        if not path.is_file():
            raise CheckpointError(f"{path}: the file is missing; {remedy}")
        if path.stat().st_size != record.bytes or sha256_of_file(path) != record.sha256:
            raise CheckpointError(f"{path}: the file was changed since {when}; {remedy}")
        return path


def run_name(step: int, method: str = DEFAULT_METHOD, kind: RunKind = "step", *, replay: bool = False) -> str:
    """The default name of a run: `step1`, `step2`, `step2-finetune`, `step2-finetune-replay`, `joint2`."""
    if kind == "joint" or method == "joint":
        return f"joint{step}"
    if step == 1:
        return "step1"
    return f"step{step}{'' if method == DEFAULT_METHOD else f'-{method}'}{'-replay' if replay else ''}"


def check_run_name(name: str) -> str:
    """Return `name` when a run may be called so.

    Raises:
        ConfigError: a character that does not belong in a file name, or a reserved name.
    """
    if BANK_MARK in name:
        raise ConfigError(f"`name` {name}: '{BANK_MARK}' marks what 'ciod distill' writes; leave it out")
    if not _RUN_NAME.fullmatch(name) or name in _RESERVED_RUN_NAMES:
        raise ConfigError(
            f"`name` {name}: a run's name holds letters, digits, '.', '_' and '-', starts with a letter or digit "
            f"and is none of {', '.join(_RESERVED_RUN_NAMES)}"
        )
    return name
