"""The demo's story, at a size that a test can afford."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from ciod_core import demo
from ciod_core.data.shapes import generate_shapes
from ciod_core.errors import CiodError
from ciod_core.experiment import Experiment
from ciod_core.training.progress import SilentListener


class Recorder(SilentListener):
    """Notes which runs were trained."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def begin(self, run: str, *details: object) -> None:
        self.runs.append(run)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(
        demo, "generate_shapes", partial(generate_shapes, train_images=16, val_images=8, image_size=64, workers=1)
    )


@pytest.mark.slow
def test_the_demo_trains_every_run_once_and_compares_them(tmp_path: Path) -> None:
    first, again = Recorder(), Recorder()
    result = demo.run_demo(tmp_path / "demo", 3, first)
    assert first.runs == ["step1", "step2-finetune", "step2-pseudo-label", "step2", "joint2"]
    assert demo.run_demo(tmp_path / "demo", 3, again) == result
    assert again.runs == []

    experiment = Experiment.open(tmp_path / "demo")
    assert [row.name for row in result.rows] == first.runs
    for row in result.rows[1:]:
        metrics = experiment.run(row.name).metrics
        assert (row.ap_old, row.ap_new, row.ap_all) == (metrics["old"], metrics["new"], metrics["all"])
    assert {experiment.run(name).parent for name in first.runs[1:4]} == {"step1"}
    assert experiment.run("joint2").parent is None
    assert {run.seed for run in experiment.manifest.runs} == {3}


def test_a_folder_made_with_another_seed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_train_missing", lambda *_: pytest.fail("nothing may be trained"))
    (tmp_path / "demo").mkdir()
    demo.generate_shapes(tmp_path / "demo" / "data", seed=1)
    with pytest.raises(CiodError, match="other parameters"):
        demo.run_demo(tmp_path / "demo", 2, SilentListener())
