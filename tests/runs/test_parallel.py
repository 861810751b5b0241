"""Two processes get from the same batches what one gets: weights and losses within rounding, the rest exactly.

Batch statistics are kept: what a process normalizes by does not depend on its share of the images then.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ciod_core.config.schema import Config, EvaluationConfig, ModelConfig, ReplayConfig, ResamplerConfig
from ciod_core.data.formats.source import DatasetSource
from ciod_core.errors import ConfigError
from ciod_core.evaluation.evaluate import evaluate_weights
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.methods.base import Method
from ciod_core.methods.crs_ckd import DistillerConfig
from ciod_core.methods.erd import ErdConfig
from ciod_core.model.base import Detector
from ciod_core.runs import train
from ciod_core.runs.consolidate import consolidate
from ciod_core.runs.distill_student import distill_into
from ciod_core.runs.spec import RunSpec
from ciod_core.runs.train import _build_models as build_models
from ciod_core.runs.train import train_step
from ciod_core.runtime.distributed import rank, union_across_processes
from ciod_core.runtime.group import Everywhere
from ciod_core.teachers.distill import distill
from ciod_core.teachers.sources import TeacherOptions
from tests.helpers.logs import losses_logged
from tests.helpers.processes import in_two_processes
from tests.training.conftest import tiny_config

FAMILIES = ("yolox-micro", "gfl-micro")
METHODS = ("crs-ckd", "erd", "sid", "rilod", "lwf", "frozen-branch", "held-branch", "pseudo-label", "finetune")
# Of 17 images in batches of 4, the last one has fewer than there are processes; in batches of 6, it has 5.
RUNS: dict[str, dict[str, Any]] = {
    **{f"yolox-micro {method}": {"method": method} for method in METHODS},
    **{f"gfl-micro {method}": {"family": "gfl-micro", "method": method} for method in ("crs-ckd", "erd")},
    "rilod in unequal shares": {"method": "rilod", "batch_size": 6},
    "background of the teacher": {"distiller": DistillerConfig(background="teacher")},
    "accumulated": {"accumulate": 2},
    "replay": {"replay": ReplayConfig(images=4)},
    "unlabeled": {"method": "lwf", "unlabeled": True},
    "bank": {"bank": True},
}
Results = dict[str, Any]


def config_of(
    folder: Path,
    *,
    family: str = FAMILIES[0],
    method: str = "crs-ckd",
    batch_size: int = 4,
    accumulate: int = 1,
    unlabeled: bool = False,
    bank: bool = False,
    **sections: Any,
) -> Config:
    # SGD, because AdamW makes whole steps of gradients that are 0 up to rounding.
    config = tiny_config(
        method, epochs=1, optimizer="sgd", lr=0.01, log_interval=1, batch_size=batch_size, accumulate=accumulate
    )
    # The teacher of a tiny run is sure of nothing; what stands out a little has to do.
    update: dict[str, Any] = {"erd": ErdConfig(num_std=1.0), "model": ModelConfig(name=family, backbone_weights="none")}
    if family == "gfl-micro" or method in ("sid", "rilod"):
        update["resampler"] = ResamplerConfig(rule="fixed", fixed_score=1e-4)
    if unlabeled:
        update["data"] = config.data.model_copy(update={"unlabeled": str(folder / "unlabeled")})
    return config.model_copy(update=update | sections)


def everything(folder: Path) -> Results:
    """Evaluate, distill and train in this process, perhaps with the help of another one; results by name."""
    yolox, few_at_a_time = (
        Experiment.open(folder / FAMILIES[0]),
        config_of(folder, evaluation=EvaluationConfig(batch_size=3)),
    )
    found, bank, seen = folder / "found.json", folder / "bank.safetensors", list[int]()
    report = evaluate_weights(
        yolox, yolox.weights_path("step1"), few_at_a_time.evaluation, save_detections=found, on_batch=seen.append
    )
    results: Results = {"evaluation": (report.to_dict(), found.read_bytes(), sum(seen))}
    distill(yolox, few_at_a_time, TeacherOptions(teacher="step1", flip=True), out=bank)
    results["bank of predictions"] = bank.read_bytes()
    for name, options in RUNS.items():
        experiment = Experiment.open(folder / options.get("family", FAMILIES[0]))
        given = {"knowledge": bank} if options.get("bank") else {}
        with patch.object(train, "_build_models", _keeping_statistics):
            run = train_step(
                experiment, config_of(folder, **options), teacher="step1", run=name.replace(" ", "-"), **given
            )
        results[name] = _of_run(experiment, run)
    run = consolidate(yolox, config_of(folder), teacher="yolox-micro-frozen-branch")
    results["consolidated"] = _of_run(yolox, run)
    student = distill_into(
        yolox, config_of(folder, family="gfl-micro"), TeacherOptions(teacher="step1"), name="student"
    )
    with Everywhere(torch.device("cpu"), dict) as anything:
        names = anything.call(_names_of_all)
    return results | {
        "student": student.status,
        "names": names,
        "refused": _refused(yolox, config_of(folder, batch_size=5)),
    }


def _keeping_statistics(spec: RunSpec, method: Method) -> tuple[Detector, Detector | None]:
    student, teacher = build_models(spec, method)
    student.keep_statistics()
    return student, teacher


def _of_run(experiment: Experiment, run: RunRecord) -> dict[str, Any]:
    weights = load_file(experiment.weights_path(run.name))
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    return {"weights": arrays, "losses": losses_logged(experiment, run), "batch": run.effective_batch_size}


def _names_of_all(anything: dict[str, str]) -> tuple[str, ...]:
    return union_across_processes(("both.jpg", f"{rank()}.jpg"))


def _refused(experiment: Experiment, config: Config) -> str:
    try:
        return train_step(experiment, config, teacher="step1", run="refused").status
    except ConfigError as error:
        return str(error)


@pytest.fixture(scope="module")
def folders(shapes_dataset: DatasetSource, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same twice: an experiment 4 + 4 of each family whose first step is trained, and images without labels."""
    folder = tmp_path_factory.mktemp("one") / "folder"
    for family in FAMILIES:
        create_experiment(shapes_dataset, "4+4", "name", folder / family)
        train_step(Experiment.open(folder / family), config_of(folder, family=family, method="finetune"))
    (folder / "unlabeled").mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (64, 48, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "unlabeled" / f"{number}.png")
    return folder, Path(shutil.copytree(folder, tmp_path_factory.mktemp("two") / "folder"))


@pytest.fixture(scope="module")
def one(folders: tuple[Path, Path]) -> Results:
    """What one process gets."""
    return everything(folders[0])


@pytest.fixture(scope="module")
def two(folders: tuple[Path, Path]) -> Results:
    """What two processes get."""
    return in_two_processes(everything, folders[1])


@pytest.mark.parametrize("name", [*RUNS, "consolidated"])
def test_weights_and_losses_of_two_processes(one: Results, two: Results, name: str) -> None:
    expected, found = one[name], two[name]
    assert found["batch"] == expected["batch"]
    assert found["weights"].keys() == expected["weights"].keys()
    for tensor, values in expected["weights"].items():
        np.testing.assert_allclose(found["weights"][tensor], values, rtol=1e-3, atol=2e-6, err_msg=tensor)
    assert found["losses"] == [pytest.approx(losses, rel=1e-3, abs=1e-5) for losses in expected["losses"]]


@pytest.mark.parametrize("name", ["evaluation", "bank of predictions"])
def test_detections_and_banks_of_two_processes_are_those_of_one(one: Results, two: Results, name: str) -> None:
    assert two[name] == one[name]


def test_processes_tell_each_other_names(one: Results, two: Results) -> None:
    assert one["names"] == [("both.jpg", "0.jpg")]
    assert two["names"] == [("both.jpg", "0.jpg", "1.jpg")] * 2


def test_a_student_learns_from_a_bank_in_two_processes(two: Results) -> None:
    assert two["student"] == "finished"


def test_a_batch_that_does_not_divide_is_refused(one: Results, two: Results) -> None:
    assert one["refused"] == "finished"
    assert two["refused"] == "`training.batch_size` 5: 2 processes cannot share it evenly; pass 4 or 6"
