"""What a run would take, measured on its first iterations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from ciod_core.errors import ConfigError
from ciod_core.experiment.folder import Experiment
from ciod_core.runs.estimate import _room_for, estimate_run
from tests.training.conftest import tiny_config


def test_an_estimate_writes_nothing_and_measures_what_would_be_trained(taught_folder: Path) -> None:
    before = {path: path.read_bytes() for path in taught_folder.rglob("*") if path.is_file()}
    experiment = Experiment.open(taught_folder)
    found = estimate_run(experiment, tiny_config("finetune", epochs=7, batch_size=4), teacher="step1")
    images = experiment.read().step(2).statistics.images
    assert (found.run, found.method, found.images, found.epochs) == ("step2-finetune", "finetune", images, 7)
    assert found.iterations == 7 * -(-images // 4)
    assert found.parameters > 100_000 and found.device == "cpu"
    assert 0 < found.seconds_per_iteration < 20 and found.seconds == found.iterations * found.seconds_per_iteration
    assert 0 < found.loading_share < 1
    assert found.memory_bytes is None or found.memory_bytes > 2**20
    assert {path: path.read_bytes() for path in taught_folder.rglob("*") if path.is_file()} == before
    branched = estimate_run(experiment, tiny_config("frozen-branch", epochs=1), teacher="step1")
    assert any(note.startswith("branches: 1, the last adds ") for note in branched.notes)
    with pytest.raises(ConfigError, match="no such weights file"):
        estimate_run(experiment, tiny_config(), teacher="step9")


def test_an_estimate_tells_how_long_compiling_took(taught_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda network, *, dynamic: None)
    experiment, told = Experiment.open(taught_folder), {}
    for compiled in (True, False):
        config = tiny_config("finetune", epochs=1, batch_size=4, compile=compiled)
        notes = estimate_run(experiment, config, teacher="step1").notes
        told[compiled] = [
            note for note in notes if re.fullmatch(r"compiling took -?\d+ s; every further size .*", note)
        ]
    assert len(told[True]) == 1 and not told[False]


def test_the_largest_batch_is_told_from_what_stays_and_what_images_take(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 2**30
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2 * gib)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 6 * gib)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70 * gib, 80 * gib))
    # Half a GiB for each of 8 images, and 90 % of 80 GiB less 2.
    assert _room_for(8, torch.device("cuda")) == 140
    assert _room_for(8, torch.device("cpu")) is None
