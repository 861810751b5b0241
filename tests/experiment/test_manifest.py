"""The manifest: what it keeps, what it refuses, and how it says so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ciod_core.errors import CheckpointError
from ciod_core.experiment.entries import FileRecord, ReplayedImage, RunRecord
from ciod_core.experiment.manifest import read_manifest
from tests.helpers.experiments import make_experiment, make_run


def test_file_record_describes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "inside" / "weights.bin"
    path.parent.mkdir()
    path.write_bytes(b"abc")

    record = FileRecord.of(path, tmp_path)

    assert record.path == "inside/weights.bin"
    assert record.sha256 == hashlib.sha256(b"abc").hexdigest()
    assert record.bytes == 3
    assert record.locate(tmp_path) == path


def test_file_record_outside_the_experiment_is_absolute(tmp_path: Path) -> None:
    outside = tmp_path / "data.json"
    outside.write_text("{}")
    experiment = tmp_path / "experiment"
    experiment.mkdir()

    record = FileRecord.of(outside, experiment)

    assert Path(record.path).is_absolute()
    assert record.locate(experiment).samefile(outside)


def test_manifest_survives_the_disk(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path)
    make_run(experiment, "step1", 1)

    manifest = read_manifest(experiment.manifest_path)

    assert manifest.classes.names == ("circle", "square", "star")
    assert manifest.steps[1].statistics.shared_images == {1: 5}
    assert [run.name for run in manifest.runs] == ["step1"]


def test_with_run_replaces_the_run_of_that_name(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path)
    first = make_run(experiment, "step1", 1)
    make_run(experiment, "step2", 2, parent="step1")

    manifest = experiment.read().with_run(first.model_copy(update={"seconds": 99.0}))

    assert [(run.name, run.seconds) for run in manifest.runs] == [("step1", 99.0), ("step2", 12.5)]


def test_manifests_from_before_protocols_still_load(tmp_path: Path) -> None:
    path = make_experiment(tmp_path).manifest_path
    document = json.loads(path.read_text())
    for field in ("file", "left_out", "seed", "unused_images"):
        del document["plan"][field]
    for step in document["steps"]:
        del step["statistics"]["hidden_left_out_boxes"]
    path.write_text(json.dumps(document | {"checksum": None}))

    manifest = read_manifest(path)

    plan = manifest.plan
    assert (plan.protocol, plan.seed, plan.left_out, plan.file, plan.unused_images) == ("overlap", None, (), None, None)
    assert plan.unlabelled_policy == "keep-images-drop-boxes"
    assert [step.statistics.hidden_left_out_boxes for step in manifest.steps] == [0, 0]


def test_runs_recorded_before_images_could_be_skipped_or_replayed_still_load(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path)
    make_run(experiment, "step1", 1)
    document = json.loads(experiment.manifest_path.read_text())
    del document["runs"][0]["skipped_images"], document["runs"][0]["replayed"]
    experiment.manifest_path.write_text(json.dumps(document | {"checksum": None}))
    run = read_manifest(experiment.manifest_path).runs[0]
    assert (run.skipped_images, run.replayed) == ((), ())


def test_steps_recorded_before_they_could_bring_data_still_load(tmp_path: Path) -> None:
    path = make_experiment(tmp_path).manifest_path
    document = json.loads(path.read_text())
    for step in document["steps"]:
        del step["data"]
    path.write_text(json.dumps(document | {"checksum": None}))
    manifest = read_manifest(path)
    assert all(step.planned and not step.extended_classes for step in manifest.steps)
    # A later validation file has the earlier classes too.
    assert (manifest.validation_steps(1), manifest.validation_steps(2)) == ((1,), (2,))


@pytest.mark.parametrize("missing", ["dataset", "val"])
def test_a_planned_step_has_a_dataset_and_a_validation_file(tmp_path: Path, missing: str) -> None:
    path = make_experiment(tmp_path).manifest_path
    document = json.loads(path.read_text())
    if missing == "dataset":
        del document["dataset"]
    else:
        document["steps"][0]["val"] = None
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="step 1 was planned, but"):
        read_manifest(path)


def test_replayed_images_survive_the_disk(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path)
    image = ReplayedImage(image_id=7, file_name="ü/a.jpg", sha256="0" * 64, steps=(1, 2))
    experiment.put_run(make_run(experiment, "step1", 1).model_copy(update={"replayed": (image,)}))
    assert experiment.read().run("step1").replayed == (image,)


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "a b"])
def test_run_names_are_file_names(tmp_path: Path, name: str) -> None:
    record = make_run(make_experiment(tmp_path), "step1", 1)
    with pytest.raises(ValidationError):
        RunRecord.model_validate({**record.model_dump(), "name": name})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format_version": 99, "something_new": 1}, "written by a newer version of ciod (format 99); upgrade ciod"),
        ({"created": None}, "created"),
        ({"surplus": 1}, "surplus"),
        ({"steps": []}, "class"),
    ],
)
def test_a_wrong_manifest_ends_in_one_line(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    path = make_experiment(tmp_path).manifest_path
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | change))

    with pytest.raises(CheckpointError) as caught:
        read_manifest(path)

    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_a_manifest_is_refused(tmp_path: Path) -> None:
    path = make_experiment(tmp_path).manifest_path
    path.write_text(path.read_text()[:200])
    with pytest.raises(CheckpointError, match="Invalid JSON"):
        read_manifest(path)


def test_steps_must_agree_with_the_class_table(tmp_path: Path) -> None:
    path = make_experiment(tmp_path).manifest_path
    document = json.loads(path.read_text())
    document["steps"][0]["classes"] = ["square", "circle"]
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="step 1 differ"):
        read_manifest(path)
