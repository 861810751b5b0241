"""Upgrades on raw documents: pure, by version, and strict about versions of the future."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ciod_core import migrations
from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import recorded_config
from ciod_core.errors import CheckpointError

UPGRADES = [getattr(migrations, name) for name in dir(migrations) if name.startswith("upgrade_")]
OF_FILES = [upgrade for upgrade in UPGRADES if upgrade is not migrations.upgrade_settings]
Upgrade = Callable[[dict[str, Any], object], dict[str, Any]]


def test_every_format_is_tested() -> None:
    names = {upgrade.__name__.removeprefix("upgrade_") for upgrade in OF_FILES}
    assert names == {"manifest", "checkpoint", "bank", "report", "state", "export"}


@pytest.mark.parametrize("upgrade", OF_FILES)
def test_a_document_without_version_becomes_one_of_the_latest(upgrade: Upgrade) -> None:
    document = {"some": {"thing": 1}}
    before = copy.deepcopy(document)
    upgraded = upgrade(document, "file")
    assert document == before
    assert upgraded.pop("format_version") >= 1
    if upgrade is migrations.upgrade_bank:
        # Banks of version 1 do not say which of their tensors are logits of responses; they all had these.
        assert upgraded.pop("responses") == {"objectness": "obj_logits_K"}
    if upgrade is migrations.upgrade_checkpoint:
        assert upgraded.pop("branch_depths") == []
    if upgrade not in (migrations.upgrade_report, migrations.upgrade_export):
        assert upgraded.pop("checksum") is None
    assert upgraded == before


def test_branches_of_version_1_were_heads() -> None:
    upgraded = migrations.upgrade_checkpoint({"head_classes": [3, 2, 1]}, "file")
    assert upgraded["branch_depths"] == ["head", "head"]
    assert migrations.upgrade_checkpoint({"head_classes": None}, "file")["branch_depths"] == []


def test_models_exported_by_version_1_yielded_nothing() -> None:
    assert migrations.upgrade_export({"nms": {"nms_iou": 0.5}}, "file")["nms"] == {"nms_iou": 0.5, "yield_iou": 1.0}
    assert migrations.upgrade_export({"nms": None}, "file")["nms"] is None


@pytest.mark.parametrize("upgrade", OF_FILES)
def test_an_upgraded_document_stays_as_it_is(upgrade: Upgrade) -> None:
    upgraded = upgrade({"some": "thing"}, "file")
    assert upgrade(upgraded, "file") == upgraded


@pytest.mark.parametrize("upgrade", OF_FILES)
def test_a_newer_version_is_refused(upgrade: Upgrade) -> None:
    with pytest.raises(CheckpointError) as caught:
        upgrade({"format_version": 99}, "folder/file")
    assert str(caught.value) == "folder/file: written by a newer version of ciod (format 99); upgrade ciod"


@pytest.mark.parametrize("upgrade", OF_FILES)
@pytest.mark.parametrize("document", [[], None, "text", {"format_version": "2"}, {"format_version": 0}])
def test_what_no_version_wrote_is_refused(upgrade: Upgrade, document: Any) -> None:
    with pytest.raises(CheckpointError, match=r"^file: .*may be damaged$"):
        upgrade(document, "file")


def test_a_manifest_of_version_1() -> None:
    assert migrations.upgrade_manifest({"schema_version": 1, "runs": []}, "file") == {
        "format_version": migrations.MANIFEST_VERSION,
        "runs": [],
        "checksum": None,
    }


def test_settings_of_runs_that_did_not_record_them() -> None:
    settings = migrations.upgrade_settings({"distiller": {"background": "teacher"}, "training": {"epochs": 3}})
    assert settings == {
        "distiller": {"background": "teacher"},
        "method": {"batch_norm": "update", "trunk_balance": 0.0, "objectness": "soft"},
        "branch": {"depth": "head"},
        "training": {"epochs": 3},
    }


@pytest.mark.parametrize(
    ("method", "batch_norm", "objectness"), [("crs-ckd", "keep", "soft"), ("erd", "update", "hard")]
)
def test_what_was_a_setting_of_crs_ckd_was_recorded_by_all(method: str, batch_norm: str, objectness: str) -> None:
    """Runs of other methods recorded it, too, and were trained without."""
    distiller = {"batch_norm": "keep", "trunk_balance": 0.5, "objectness": "soft", "target": "hard"}
    settings = migrations.upgrade_settings({"distiller": distiller, "method": {"name": method}})
    assert settings["distiller"] == {"background": "zero", "target": "hard"}
    assert (settings["method"]["batch_norm"], settings["method"]["objectness"]) == (batch_norm, objectness)
    assert migrations.upgrade_settings(settings) == settings


def test_a_renamed_setting_is_read_under_its_old_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    renamed = {"optimisation.rounds": "training.epochs", "resampler.overlap": "resampler.nms_iou"}
    monkeypatch.setattr(migrations, "RENAMED_SETTINGS", renamed)
    monkeypatch.setattr("ciod_core.config.resolve.RENAMED_SETTINGS", renamed)
    old = {"optimisation": {"rounds": 5}, "training": {"batch_size": 2}, "resampler": {"overlap": 0.25}}
    recorded = recorded_config(old)
    assert (recorded.training.epochs, recorded.training.batch_size, recorded.resampler.nms_iou) == (5, 2, 0.25)
    bank = migrations.upgrade_bank({"resampler": {"overlap": 0.25}}, "file")
    assert bank["resampler"] == {"nms_iou": 0.25}
    (tmp_path / "config.yaml").write_text("resampler: {overlap: 0.25}\noptimisation.rounds: 5\n")
    assert resolve_config(tmp_path / "config.yaml").resampler.nms_iou == 0.25
    assert resolve_config(assignments=["optimisation.rounds=5"]).training.epochs == 5


def test_torch_is_not_imported() -> None:
    code = "import sys, ciod_core.migrations; sys.exit(int(bool({'torch', 'numpy'} & set(sys.modules))))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
