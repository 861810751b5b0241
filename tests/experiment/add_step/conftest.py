"""A chain of one step."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.experiment.add_step import add_step
from ciod_core.experiment.folder import Experiment
from tests.helpers.chains import begin_run, data_source, write_data


@pytest.fixture
def chain(tmp_path: Path) -> Experiment:
    """Step 1 with circles and squares, on three images and one for validation; not trained yet."""
    data = tmp_path / "data"
    train = write_data(data, "first", {"a.png": ["circle"], "b.png": ["square", "circle"], "c.png": []})
    val = write_data(data, "firstval", {"a.png": ["square", "circle"]})
    with add_step(data_source(train, val), experiment=tmp_path / "chain") as added:
        begin_run(added.experiment, "step1", 1)
    return added.experiment
