"""Upgrade what older versions of ciod wrote: functions from a raw document to one that this version reads.

Every file format has a `format_version`; a document without one is of version 1. To change a format, append a function
to its tuple below: the first leads from version 1 to 2, the second from 2 to 3, and so on. No upgrade modifies its
argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ciod_core.errors import CheckpointError

Document = dict[str, Any]
Upgrades = tuple[Callable[[Document], Document], ...]

# Settings that have another name by now: old dotted key → new dotted key. Configuration files may use either.
RENAMED_SETTINGS: Mapping[str, str] = {
    "resampler.centre_score": "resampler.center_score",
    "replay.unlabelled": "data.missing_labels",
    "replay.unlabeled": "data.missing_labels",
    "replay.suspect_score": "data.missing_score",
    "replay.unlabeled_score": "data.missing_score",
    "distiller.batch_norm": "method.batch_norm",
    "distiller.trunk_balance": "method.trunk_balance",
    "distiller.objectness": "method.objectness",
}

# What settings were before they existed: runs that do not record them were trained like that.
LEGACY_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "distiller": {"background": "zero"},
    "branch": {"depth": "head"},
}


def upgrade_settings(recorded: Document) -> Document:
    """The settings of a recorded run (sections with values), under today's names and complete."""
    settings = {name: then | recorded.get(name, {}) for name, then in LEGACY_DEFAULTS.items()}
    return _renamed(_with_shared_options(recorded | settings))


def _with_shared_options(recorded: Document) -> Document:
    """What crs-ckd alone had, and recorded under `distiller` whatever the method, is now an option of all methods."""
    method, distiller = recorded.get("method", {}), recorded["distiller"]
    if "batch_norm" in method:
        return recorded
    had_them = method.get("name", "crs-ckd") in ("crs-ckd", "auto")
    options = {
        name: distiller.get(name, then) if had_them else without
        for name, then, without in (
            ("batch_norm", "update", "update"),
            ("trunk_balance", 0.0, 0.0),
            ("objectness", "soft", "hard"),
        )
    }
    kept = {name: value for name, value in distiller.items() if name not in options}
    return recorded | {"method": method | options, "distiller": kept}


def upgrade_manifest(document: Document, where: object) -> Document:
    """Upgrade an `experiment.json`.

    Args:
        document: its raw content; of the settings of its runs see `upgrade_settings`.
        where: the file, for messages.

    Raises:
        CheckpointError: the document is no mapping, or a newer version of ciod wrote it.
    """
    return _upgraded(document, where, _MANIFEST)


def upgrade_checkpoint(document: Document, where: object) -> Document:
    """Upgrade the description in weights; like `upgrade_manifest`."""
    return _upgraded(document, where, _CHECKPOINT)


def upgrade_bank(document: Document, where: object) -> Document:
    """Upgrade the description in a knowledge bank; like `upgrade_manifest`."""
    return _upgraded(document, where, _BANK)


def upgrade_report(document: Document, where: object) -> Document:
    """Upgrade an evaluation's `metrics.json`; like `upgrade_manifest`."""
    return _upgraded(document, where, _REPORT)


def upgrade_state(document: Document, where: object) -> Document:
    """Upgrade the description in the state of an unfinished run; like `upgrade_manifest`."""
    return _upgraded(document, where, _STATE)


def upgrade_export(document: Document, where: object) -> Document:
    """Upgrade the description in an exported model; like `upgrade_manifest`."""
    return _upgraded(document, where, _EXPORT)


def _upgraded(document: Document, where: object, upgrades: Upgrades) -> Document:
    if not isinstance(document, dict):
        raise CheckpointError(f"{where}: its description is unknown (not a JSON object); the file may be damaged")
    latest = _latest(upgrades)
    # Manifests of version 1 called it schema_version.
    version = document.get("format_version", document.get("schema_version", 1))
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{where}: format_version is {version!r}; the file may be damaged")
    if version > latest:
        raise CheckpointError(f"{where}: written by a newer version of ciod (format {version}); upgrade ciod")
    for upgrade in upgrades[version - 1 :]:
        document = upgrade(document)
    return document | {"format_version": latest}


def _latest(upgrades: Upgrades) -> int:
    return len(upgrades) + 1


def _renamed(sections: Document) -> Document:
    renamed: Document = {}
    for section, values in sections.items():
        if not isinstance(values, dict):
            renamed[section] = values
            continue
        for name, value in values.items():
            key = f"{section}.{name}"
            new_section, new_name = RENAMED_SETTINGS.get(key, key).split(".", 1)
            renamed.setdefault(new_section, {})[new_name] = value
    return renamed


def _manifest_2(document: Document) -> Document:
    """`schema_version` becomes `format_version`."""
    return {key: value for key, value in document.items() if key != "schema_version"}


def _manifest_3(document: Document) -> Document:
    """Runs have a `choice`; no method was chosen automatically. Validation images may be `held_out`; none were."""
    return document


def _manifest_4(document: Document) -> Document:
    """Runs have `epochs`, `ended_by` and `inherited`: none ended early, and all had settings of their own."""
    return document


def _manifest_5(document: Document) -> Document:
    """Manifests have a `checksum`, and `accepted` changes; runs have `files`. There was nothing of it."""
    return _unsealed(document)


def _checkpoint_2(document: Document) -> Document:
    """Branches have a depth, and all had that of a head; imported weights have a source, and there were none."""
    return document | {"branch_depths": ["head"] * (len(document.get("head_classes") or (0,)) - 1)}


def _unsealed(document: Document) -> Document:
    """Files have a `checksum`; they had none."""
    return {"checksum": None} | document


def _bank_2(document: Document) -> Document:
    """The settings of the selection get today's names; `responses` names the tensor of each response."""
    renamed = _renamed({key: value for key, value in document.items() if key == "resampler"})
    return document | renamed | {"responses": {"objectness": "obj_logits_K"}}


def _state_2(document: Document) -> Document:
    """`seconds` and `skipped_images` were tensors; `ciod_core.training.resume` reads them where they are missing."""
    return document


def _state_3(document: Document) -> Document:
    """States have the `best` evaluation; nothing was evaluated during training."""
    return document


def _state_4(document: Document) -> Document:
    """States name their `owner`, the run; they did not. They have a `checksum`; they had none."""
    return _unsealed(document)


def _report_2(document: Document) -> Document:
    """`false_alarms` were not measured."""
    return document


def _export_2(document: Document) -> Document:
    """`yield_iou` is new; detections of branches yielded to nothing."""
    nms = document.get("nms")
    return document | ({"nms": nms | {"yield_iou": 1.0}} if isinstance(nms, dict) else {})


_MANIFEST: Upgrades = (_manifest_2, _manifest_3, _manifest_4, _manifest_5)
_CHECKPOINT: Upgrades = (_checkpoint_2, _unsealed)
_BANK: Upgrades = (_bank_2, _unsealed)
_REPORT: Upgrades = (_report_2,)
_STATE: Upgrades = (_state_2, _state_3, _state_4)
_EXPORT: Upgrades = (_export_2,)

MANIFEST_VERSION = _latest(_MANIFEST)
CHECKPOINT_VERSION = _latest(_CHECKPOINT)
BANK_VERSION = _latest(_BANK)
REPORT_VERSION = _latest(_REPORT)
STATE_VERSION = _latest(_STATE)
EXPORT_VERSION = _latest(_EXPORT)
