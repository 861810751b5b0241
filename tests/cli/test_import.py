"""`ciod import`."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ciod_core.files import sha256_of_file
from tests.cli.conftest import Ciod
from tests.helpers.networks import lively_detector
from tests.helpers.published import published_state


def test_import_and_what_it_says(ciod: Ciod, tmp_path: Path) -> None:
    torch.save(published_state(lively_detector("yolox-micro", 80)), tmp_path / "yolox_s.pth")
    answer = ciod("import", tmp_path / "yolox_s.pth")
    target = tmp_path / "yolox_s.safetensors"
    assert (answer.code, answer.out) == (0, f"{target}\n")
    assert "named as COCO's; otherwise pass --classes" in answer.err

    refused = ciod("import", tmp_path / "yolox_s.pth")
    assert refused.code == 2
    assert "--overwrite" in refused.error_line

    document = json.loads(ciod("import", tmp_path / "yolox_s.pth", "--overwrite", "--json").out)
    assert document["sha256"] == sha256_of_file(target)
    assert document["source"]["license"] == "Apache-2.0"
    assert len(document["classes"]["entries"]) == 80


def test_mistakes(ciod: Ciod, tmp_path: Path) -> None:
    torch.save(published_state(lively_detector("yolox-micro", 3)), tmp_path / "three.pth")
    answer = ciod("import", tmp_path / "three.pth")
    assert answer.code == 2
    assert "detects 3 classes, not COCO's 80; pass --classes" in answer.error_line
    answer = ciod("import", tmp_path / "three.pth", "--image-size", "300")
    assert answer.code == 2
    assert "--image-size 300: must be a multiple of 32" in answer.error_line
    for missing, expected in ((tmp_path / "nowhere.pth", "does not exist; pass YOLOX weights"), (".", "is a folder")):
        answer = ciod("import", missing)
        assert answer.code == 4
        assert expected in answer.error_line
