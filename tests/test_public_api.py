"""`import ciod`: cheap to import, and the whole chain in Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ciod
from tests.helpers.chains import write_data

TINY = {
    "model": {"name": "yolox-micro"},
    "data": {"image_size": 64, "workers": 0},
    "training": {"epochs": 1, "batch_size": 8, "device": "cpu"},
}


def test_import_costs_nothing() -> None:
    code = (
        "import sys, ciod\n"
        "assert 'train_step' in dir(ciod) and ciod.__version__\n"
        "heavy = {'torch', 'torchvision', 'numpy', 'PIL', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ciod.__all__)
def test_every_name_exists(name: str) -> None:
    assert getattr(ciod, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="predictt"):
        ciod.predictt  # noqa: B018


@pytest.mark.slow
def test_the_whole_chain(tmp_path: Path) -> None:
    write_data(tmp_path, "first", {"a.png": ["circle"], "b.png": ["square", "circle"]})
    write_data(tmp_path, "second", {"a.png": ["star"], "b.png": ["star"]})
    write_data(tmp_path, "val", {"a.png": ["star"], "b.png": ["circle"]})

    config = ciod.Config.model_validate(TINY)
    experiment = ciod.add_step(tmp_path / "first.json", experiment=tmp_path / "chain")
    first = ciod.train_step(experiment, config)
    experiment = ciod.add_step(tmp_path / "second.json", experiment=experiment.folder, teacher=first.name)
    second = ciod.train_step(experiment, config, teacher=first.name)
    loaded = ciod.load(experiment.weights_path(second.name), device="cpu")
    assert loaded.classes == ("circle", "square", "star")


@pytest.mark.slow
def test_a_planned_experiment_is_evaluated_and_exported(tmp_path: Path, shapes_dataset: object) -> None:
    folder = shapes_dataset.train.annotations.parent.parent  # type: ignore[attr-defined]
    config = ciod.Config.model_validate(TINY)
    experiment = ciod.create_experiment(folder, "5+3", tmp_path / "experiment")
    run = ciod.train_step(experiment, config)
    result = ciod.evaluate(experiment, run.name, config=config)
    assert result.report.run == run.name
    assert result.chain is not None
    description = ciod.export(experiment.weights_path(run.name), tmp_path / "model.pt2", format="pt2", fixed=True)
    assert description.run == run.name and description.input.fixed and (tmp_path / "model.pt2").is_file()
