"""`ciod export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ciod_core.experiment.folder import Experiment
from ciod_core.files import sha256_of_file
from tests.cli.conftest import Ciod


def test_onnx_beside_the_weights_and_in_the_manifest(ciod: Ciod, own_copy: Path) -> None:
    """One image at a time, which is exported three times as fast as free sizes; other tests run those."""
    outcome = ciod("export", own_copy / "step2.safetensors", "--fixed")
    target = own_copy / "step2.onnx"
    assert outcome.code == 0
    assert outcome.out == f"{target}\n"
    assert Experiment.open(own_copy).read().run("step2").outputs["step2.onnx"].sha256 == sha256_of_file(target)

    refused = ciod("export", own_copy / "step2.safetensors")
    assert refused.code == 2
    assert "--overwrite" in refused.error_line


def test_pt2_without_suppression(ciod: Ciod, own_copy: Path, tmp_path: Path) -> None:
    """The classes are those of step 1; other tests run such files."""
    outcome = ciod(
        "export",
        "step1",
        "--experiment",
        own_copy,
        "--format",
        "pt2",
        "--no-nms",
        "--fixed",
        "--out",
        tmp_path / "m.pt2",
        "--json",
    )
    document = json.loads(outcome.out)
    assert document["file"] == str(tmp_path / "m.pt2")
    assert document["nms"] is None
    assert [entry["name"] for entry in document["classes"]["entries"]] == list(
        Experiment.open(own_copy).read().steps[0].classes
    )


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("step9",), 2, "step9"),
        (("step2", "--format", "tflite"), 2, "--format"),
        (("step2", "--score", "2"), 2, "score_threshold"),
        (
            ("step2", "--license", "mit"),
            2,
            "--license: only a model card has one; leave it out, or choose --format hub",
        ),
        (("step2", "--format", "hub", "--out", "."), 2, "--out .: it exists, and a folder is never replaced"),
        (("step2", "--format", "hub", "--no-nms"), 2, "the model of format hub has it"),
        (("step2", "--format", "hub", "--fixed"), 2, "--fixed: the model of format hub takes images of any size"),
    ],
)
def test_invalid_arguments(ciod: Ciod, trained: Path, arguments: tuple[str, ...], code: int, expected: str) -> None:
    outcome = ciod("export", "--experiment", trained, *arguments)
    assert outcome.code == code
    assert expected in outcome.error_line
    assert not list(trained.glob("*.onnx"))


def test_corrupt_weights(ciod: Ciod, tmp_path: Path) -> None:
    (tmp_path / "garbage.safetensors").write_bytes(b"not weights")
    outcome = ciod("export", tmp_path / "garbage.safetensors")
    assert outcome.code == 4
    assert not (tmp_path / "garbage.onnx").exists()


@pytest.mark.parametrize("name", ["none.safetensors", "folder/step2"])
def test_a_file_that_is_not_there_is_named(
    ciod: Ciod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Not the experiment, which a file needs none of; a bare name may be that of a run."""
    monkeypatch.chdir(tmp_path)
    outcome = ciod("export", name)
    assert (outcome.code, outcome.error_line) == (2, f"error: {name}: there is no such file; check the path")
    assert "no experiment given" in ciod("export", "step2").error_line
