"""`ciod status`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from ciod_core.experiment.folder import TRAINING_LOCK
from tests.cli.conftest import Ciod
from tests.helpers.experiments import make_experiment, make_run


def test_tree_of_runs(ciod: Ciod, tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path)
    make_run(experiment, "step1", 1)
    record = make_run(experiment, "step2", 2, parent="step1")
    make_run(experiment, "step2-finetune", 2, parent="step1", method="finetune", status="interrupted")
    metrics = {"all": 0.42, "old": 0.5, "new": 0.26, "step1": 0.5}
    early = {"epochs": 4, "ended_by": "patience"}
    experiment.put_run(record.model_copy(update={"metrics": metrics} | early))

    lines = ciod("status", tmp_path).out.splitlines()

    tree = lines[lines.index("runs") + 1 :]
    assert tree[0].startswith("└── step1")
    assert tree[1].startswith("    ├── step2")
    assert "finished  ended after 4 epochs (patience)" in tree[1] and "ended" not in tree[0]
    assert "AP 42.0  old 50.0  new 26.0" in tree[1]
    assert "step2-finetune  finetune  interrupted" in tree[2]


def test_nothing_trained_yet(ciod: Ciod, tmp_path: Path) -> None:
    make_experiment(tmp_path)
    outcome = ciod("status", tmp_path)
    assert "circle, square" in outcome.out
    assert "ciod train-step" in outcome.out


def test_a_run_that_was_killed_does_not_pass_for_running(ciod: Ciod, tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path)
    make_run(experiment, "step1", 1, status="running")
    (tmp_path / "step1").mkdir()
    assert "killed; --resume continues it" in " ".join(ciod("status", tmp_path).out.split())
    with FileLock(tmp_path / "step1" / TRAINING_LOCK):
        assert "step1  crs-ckd  running" in ciod("status", tmp_path).out


def test_json_is_the_manifest(ciod: Ciod, tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path)
    document = json.loads(ciod("status", tmp_path, "--json").out)
    assert document.pop("experiment") == str(tmp_path)
    on_disk = json.loads(experiment.manifest_path.read_text())
    assert on_disk.pop("checksum") and document == on_disk


class TestVerify:
    def test_a_sound_experiment(self, ciod: Ciod, tmp_path: Path) -> None:
        make_run(make_experiment(tmp_path), "step1", 1)
        outcome = ciod("status", tmp_path, "--verify")
        assert (outcome.code, outcome.out) == (0, "6 files and 0 images are as they were recorded\n")

    @pytest.mark.parametrize("accept", [False, True])
    @pytest.mark.parametrize("as_json", [False, True])
    def test_a_changed_input(self, accept: bool, as_json: bool, ciod: Ciod, tmp_path: Path) -> None:
        make_run(make_experiment(tmp_path), "step1", 1)
        (tmp_path / "splits" / "step2.train.json").write_text("{}")
        flags = ["--accept-changed"] * accept + ["--json"] * as_json
        outcome = ciod("status", tmp_path, "--verify", *flags)
        assert outcome.code == (0 if accept else 4)
        if as_json:
            found = json.loads(outcome.out)
            named = found["accepted" if accept else "broken"]
            assert [link["path"] for link in named] == ["splits/step2.train.json"]
            assert accept or named[0]["affects"] == ["step 2"]
        elif not accept:
            assert outcome.out == "splits/step2.train.json: was changed since it was recorded; affects step 2\n"
            assert "1 of 6 files are broken; restore them, or accept inputs with --accept-changed" in outcome.error_line
        assert ciod("status", tmp_path, "--verify").code == outcome.code

    def test_an_edited_manifest(self, ciod: Ciod, tmp_path: Path) -> None:
        manifest = make_experiment(tmp_path).manifest_path
        manifest.write_text(manifest.read_text().replace('"toy"', '"tor"'))
        for flags in ((), ("--verify",)):
            outcome = ciod("status", tmp_path, *flags)
            assert outcome.code == 4 and "--verify --accept-changed" in outcome.error_line
        assert ciod("status", tmp_path, "--verify", "--accept-changed").code == 0
        assert "tor" in ciod("status", tmp_path).out

    def test_accepting_requires_verifying(self, ciod: Ciod, tmp_path: Path) -> None:
        make_experiment(tmp_path)
        assert ciod("status", tmp_path, "--accept-changed").code == 2


def test_the_experiment_is_found_from_a_subfolder(ciod: Ciod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_experiment(tmp_path)
    monkeypatch.chdir(tmp_path / "splits")
    assert ciod("status").code == 0


def test_no_experiment(ciod: Ciod, tmp_path: Path) -> None:
    outcome = ciod("status", tmp_path)
    assert outcome.code == 2
    assert "experiment.json is missing" in outcome.error_line


def test_an_experiment_that_is_given_twice(ciod: Ciod, tmp_path: Path) -> None:
    make_experiment(tmp_path)
    assert ciod("status", tmp_path, "--experiment", tmp_path).code == 2


def test_damaged_manifest(ciod: Ciod, tmp_path: Path) -> None:
    make_experiment(tmp_path).manifest_path.write_text("{")
    outcome = ciod("status", tmp_path)
    assert outcome.code == 4
    assert "experiment.json" in outcome.error_line
