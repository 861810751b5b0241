"""`ciod demo`: how the command calls the demo and shows its rows. The demo itself is tested in tests/test_demo.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ciod_core import demo
from ciod_core.demo import DemoResult, DemoRow
from ciod_core.errors import ConfigError
from ciod_core.training.progress import TrainingListener
from tests.cli.conftest import Ciod


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int]]:
    """Replaces the training, minutes of it, by two rows that follow from the seed."""
    seen: list[tuple[Path, int]] = []

    def run_demo(out: Path, seed: int, listener: TrainingListener) -> DemoResult:
        seen.append((out, seed))
        listener.begin("step1", 1, 1, ())
        rows = (
            DemoRow("step1", 0.6, None, None, None, None, None, 10.0),
            DemoRow("step2", 0.5 + seed / 10, 0.4, 0.45, 0.75, 0.1, 0.95, 70.0),
        )
        return DemoResult(out, rows)

    monkeypatch.setattr(demo, "run_demo", run_demo)
    return seen


def test_one_seed(ciod: Ciod, calls: list[tuple[Path, int]], tmp_path: Path) -> None:
    answer = ciod("demo", "--out", tmp_path, "--seed", "2")
    assert calls == [(tmp_path, 2)]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in answer.out.splitlines() if "step" in line]
    assert rows == [
        ["step1", "60.0", "–", "–", "–", "–", "–", "10 s"],
        ["step2", "70.0", "40.0", "45.0", "75.0", "10.0", "0.950", "1:10"],
    ]


def test_several_seeds_get_folders_and_a_mean(ciod: Ciod, calls: list[tuple[Path, int]], tmp_path: Path) -> None:
    answer = ciod("demo", "--out", tmp_path, "--seeds", "3")
    assert calls == [(tmp_path / f"seed{seed}", seed) for seed in range(3)]
    assert "60.0 ± 10.0" in answer.out
    assert "0.950 ± 0.000" in answer.out


def test_json(ciod: Ciod, calls: list[tuple[Path, int]], tmp_path: Path) -> None:
    document = json.loads(ciod("demo", "--out", tmp_path, "--json").out)
    assert [entry["seed"] for entry in document["seeds"]] == [0]
    assert document["seeds"][0]["runs"][1]["omega"] == 0.95
    assert document["seeds"][0]["runs"][0]["ap_new"] is None


def test_a_foreign_folder(ciod: Ciod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(out: Path, seed: int, listener: TrainingListener) -> DemoResult:
        raise ConfigError(f"--out {out}: it holds another experiment; pass an empty folder")

    monkeypatch.setattr(demo, "run_demo", refuse)
    answer = ciod("demo", "--out", tmp_path)
    assert answer.code == 2
    assert "another experiment" in answer.error_line
