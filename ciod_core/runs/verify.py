"""Verifying an experiment: each file that it recorded, and each of ciod's beside them, is read as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError

from ciod_core.data.images.hashes import HashedFile
from ciod_core.errors import CheckpointError
from ciod_core.experiment.entries import AcceptedChange, FileRecord
from ciod_core.experiment.folder import BANK_MARK, MANIFEST_NAME, STATE_FILE, Experiment
from ciod_core.experiment.images import changed_images, images_file, record_images, recorded_images
from ciod_core.experiment.manifest import ExperimentManifest, read_manifest
from ciod_core.files import sha256_of_file
from ciod_core.model import checkpoint
from ciod_core.records import open_tensors
from ciod_core.teachers import bank
from ciod_core.training import resume

# How a safetensors file that says of which kind it is is read as a whole.
_READERS: dict[str, Callable[[Path], object]] = {
    checkpoint.METADATA_KEY: lambda path: checkpoint.read_info(path, verify=True),
    bank.METADATA_KEY: bank.KnowledgeBank,
    resume.METADATA_KEY: resume.read_state,
}


class BrokenLink(NamedTuple):
    """A file that is not what it was when it was recorded.

    Attributes:
        path: seen from the experiment's folder.
        problem: what is wrong with it.
        affects: the steps and runs that build on it.
        change: what can be accepted; None: the file is missing, or a run wrote it.
        image: as it is now, of an image.
    """

    path: str
    problem: str
    affects: tuple[str, ...] = ()
    change: AcceptedChange | None = None
    image: HashedFile | None = None


class Verification(NamedTuple):
    """What `verify` read, what is broken, and what it accepted."""

    files: int
    images: int
    broken: tuple[BrokenLink, ...]
    accepted: tuple[AcceptedChange, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values ready for JSON."""
        broken = [{"path": link.path, "problem": link.problem, "affects": list(link.affects)} for link in self.broken]
        accepted = [change.model_dump(mode="json") for change in self.accepted]
        return {"files": self.files, "images": self.images, "broken": broken, "accepted": accepted}


def verify(experiment: Experiment, on_image: Callable[[int], None] = lambda count: None) -> Verification:
    """Read every file of an experiment and compare it with what was recorded.

    Args:
        experiment: the experiment.
        on_image: called with the number of further images that were read.

    Raises:
        CheckpointError: the manifest is damaged or was edited.
    """
    manifest = experiment.read()
    uses = _uses(manifest)
    unrecorded = [path for path in _tensor_files(experiment, manifest) if path not in uses]
    broken = [*_broken_files(experiment, manifest, uses), *_damaged(experiment, manifest, unrecorded)]
    images = 0
    try:
        images = len(recorded_images(experiment))
        broken += _broken_images(experiment, manifest, on_image)
    except CheckpointError as error:
        broken.append(BrokenLink(_name(experiment, images_file(experiment)), str(error)))
    return Verification(len(uses) + len(unrecorded), images, tuple(broken))


def accept_changes(experiment: Experiment, on_image: Callable[[int], None] = lambda count: None) -> Verification:
    """Record changed inputs (annotations, images, files from outside) as they are now, and an edited manifest.

    The manifest lists what was accepted. What a run wrote is not accepted; arguments are those of `verify`.

    Raises:
        CheckpointError: the manifest is damaged.
    """
    edit = _accept_edit(experiment)
    found = verify(experiment, on_image)
    links = [link for link in found.broken if link.change is not None]
    accepted = (*edit, *(link.change for link in links if link.change is not None))
    images = {link.path: link.image for link in links if link.image is not None}
    if images:
        record_images(experiment, images)
    if links:
        experiment.update(lambda manifest: _with_accepted(experiment, manifest, accepted[len(edit) :]))
    broken = tuple(link for link in found.broken if link.change is None)
    return found._replace(broken=broken, accepted=accepted)


class _Use(NamedTuple):
    """A place of the manifest that names a file."""

    user: str
    record: FileRecord
    is_output: bool = False


def _uses(manifest: ExperimentManifest) -> dict[str, list[_Use]]:
    """All places that name a file, by its path."""
    uses: list[_Use] = []
    for user, data in [("dataset", manifest.dataset), *((f"step {step.step}", step.data) for step in manifest.steps)]:
        splits = (data.train, data.val) if data is not None else ()
        uses += [_Use(user, split.annotations) for split in splits if split is not None]
    for step in manifest.steps:
        uses += [_Use(f"step {step.step}", record) for record in (step.train, step.val) if record is not None]
    for run in manifest.runs:
        uses += [_Use(run.name, record) for record in run.inputs.values()]
        uses += [_Use(run.name, record, is_output=True) for record in (*run.outputs.values(), *run.files.values())]
    by_path: dict[str, list[_Use]] = {}
    for use in uses:
        by_path.setdefault(use.record.path, []).append(use)
    return by_path


def _broken_files(
    experiment: Experiment, manifest: ExperimentManifest, uses: dict[str, list[_Use]]
) -> Iterator[BrokenLink]:
    for path, places in uses.items():
        try:
            now = sha256_of_file(experiment.folder / path)
        except OSError as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            yield BrokenLink(path, reason, _affected(manifest, places))
            continue
        broken = [use for use in places if not _is_accepted(manifest, use.record, now)]
        if broken:
            change = None if any(use.is_output for use in places) else _change(path, broken[0].record.sha256, now)
            yield BrokenLink(path, "was changed since it was recorded", _affected(manifest, broken), change)


def _is_accepted(manifest: ExperimentManifest, record: FileRecord, now: str) -> bool:
    """Whether a file is what was recorded, or what the user accepted in its place."""
    sha256 = record.sha256
    for change in manifest.accepted:
        if (change.path, change.before) == (record.path, sha256):
            sha256 = change.now
    return sha256 == now


def _affected(manifest: ExperimentManifest, uses: Sequence[_Use]) -> tuple[str, ...]:
    """Those that name a file, and the runs that come after them."""
    names = list(dict.fromkeys(use.user for use in uses))
    for name in names:  # grows while it is read
        names += [child for child in manifest.children_of(name) if child not in names]
    return tuple(names)


def _tensor_files(experiment: Experiment, manifest: ExperimentManifest) -> list[str]:
    """Weights, banks and states in the folder and in those of the runs."""
    folders = [experiment.folder, *(experiment.run_folder(run.name) for run in manifest.runs)]
    found = [
        path for folder in folders for pattern in ("*", "state/*") for path in folder.glob(f"{pattern}.safetensors")
    ]
    return sorted(_name(experiment, path) for path in found)


def _damaged(experiment: Experiment, manifest: ExperimentManifest, paths: Sequence[str]) -> Iterator[BrokenLink]:
    """Those of files that no record has the hash of whose content does not have their own checksum."""
    for path in paths:
        try:
            with open_tensors(experiment.folder / path) as file:
                metadata = file.metadata() or {}
            for key, read in _READERS.items():
                if key in metadata or key == _kind_by_name(path):
                    read(experiment.folder / path)
        except (CheckpointError, SafetensorError, OSError) as error:
            owner = path.partition("/")[0]
            yield BrokenLink(path, f"is damaged ({error})", (owner,) if manifest.find_run(owner) else ())


def _kind_by_name(path: str) -> str | None:
    """The key of `_READERS` that a file of this name has, if ciod alone gives such names."""
    if Path(path).parent.name == STATE_FILE.parent.name:
        return resume.METADATA_KEY
    return bank.METADATA_KEY if Path(path).stem.endswith(BANK_MARK) else None


def _broken_images(
    experiment: Experiment, manifest: ExperimentManifest, on_image: Callable[[int], None]
) -> Iterator[BrokenLink]:
    trained = [run.name for run in manifest.runs if run.epochs and run.status == "finished"]
    if trained and not images_file(experiment).exists():
        problem = "is missing: nobody can tell whether images were changed; restore it"
        yield BrokenLink(_name(experiment, images_file(experiment)), problem, tuple(trained))
    for path, before, now in changed_images(experiment, on_image):
        affects = _affected_by_image(manifest, path)
        if now is None:
            yield BrokenLink(path, "cannot be read", affects)
        else:
            change = _change(path, before.sha256, now.sha256)
            yield BrokenLink(path, "was changed since it was first used", affects, change, now)


def _affected_by_image(manifest: ExperimentManifest, path: str) -> tuple[str, ...]:
    """The steps whose images lie in the folder of this one, and their runs with all that come after them."""
    steps = []
    for step in manifest.steps:
        folders = [manifest.train_images(step.step)] if step.train else []
        folders += [manifest.val_images(step.step)] if step.val else []
        if any(path.startswith(f"{folder}/") for folder in folders):
            steps.append(step.step)
    names = [f"step {step}" for step in steps]
    return (*names, *(run.name for run in manifest.runs if steps and run.step >= steps[0]))


def _accept_edit(experiment: Experiment) -> tuple[AcceptedChange, ...]:
    """Give an edited manifest its checksum."""
    path = experiment.manifest_path
    try:
        experiment.read()
        return ()
    except CheckpointError:
        manifest = read_manifest(path, edited=True)
        change = _change(MANIFEST_NAME, "", sha256_of_file(path))
        with experiment.lock():
            experiment.write(manifest.model_copy(update={"accepted": (*manifest.accepted, change)}))
        return (change,)


def _with_accepted(
    experiment: Experiment, manifest: ExperimentManifest, changes: Sequence[AcceptedChange]
) -> ExperimentManifest:
    """The manifest with these changes, its steps and dataset with the files as they are now; runs keep their inputs."""
    now = {change.path: FileRecord.of(experiment.folder / change.path, experiment.folder) for change in changes}

    def replaced(node: Any) -> Any:
        if isinstance(node, dict) and node.keys() == FileRecord.model_fields.keys():
            record = now.get(node["path"])
            return node if record is None else record.model_copy(update={"path": node["path"]}).model_dump()
        if isinstance(node, dict):
            return {key: replaced(value) for key, value in node.items()}
        return [replaced(value) for value in node] if isinstance(node, list | tuple) else node

    document = manifest.model_dump()
    document |= {key: replaced(document[key]) for key in ("dataset", "steps")}
    document["accepted"] = [*document["accepted"], *(change.model_dump() for change in changes)]
    return ExperimentManifest.model_validate(document)


def _change(path: str, before: str, now: str) -> AcceptedChange:
    return AcceptedChange(path=path, before=before, now=now, accepted=datetime.now(UTC).isoformat(timespec="seconds"))


def _name(experiment: Experiment, path: Path) -> str:
    return path.relative_to(experiment.folder).as_posix()
