"""The demo's story, at a size that a test can afford."""

from __future__ import annotations

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


SMALL = demo.DemoSize(train_images=16, val_images=8, base_epochs=2, step_epochs=1)


@pytest.mark.slow
def test_the_demo_trains_every_run_once_and_compares_them(tmp_path: Path) -> None:
    first, again = Recorder(), Recorder()
    result = demo.run_demo(tmp_path / "demo", 3, first, SMALL)
    assert first.runs == ["step1", "step2-finetune", "step2"]
    assert demo.run_demo(tmp_path / "demo", 3, again, SMALL) == result
    assert again.runs == []

    experiment = Experiment.open(tmp_path / "demo")
    names = [row.name for row in result.rows]
    assert names == ["step1", "step2-finetune", "step2-pseudo-label", "step2", "joint2"]
    for row in result.rows[1:]:
        metrics = experiment.run(row.name).metrics
        assert (row.ap_old, row.ap_new, row.ap_all) == (metrics["old"], metrics["new"], metrics["all"])
    assert [experiment.run(name).parent for name in names] == [None, "step1", "step1", "step1", None]
    assert [experiment.run(name).config["training"]["epochs"] for name in names] == [2, 1, 1, 1, 3]
    assert {run.seed for run in experiment.manifest.runs} == {3}
    assert {run.device for run in experiment.manifest.runs} == {"cpu (1 thread)"}


def test_a_folder_made_with_another_seed_is_refused(tmp_path: Path) -> None:
    generate_shapes(tmp_path / "demo" / "data", train_images=16, val_images=8, seed=1)
    with pytest.raises(CiodError, match="other parameters"):
        demo.run_demo(tmp_path / "demo", 2, SilentListener(), SMALL)
    assert not (tmp_path / "demo" / "experiment.json").exists()
