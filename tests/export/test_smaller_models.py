"""`examples/quantize.py`: models in half precision and with 8-bit convolutions that detect nearly the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ciod

pytest.importorskip("onnxruntime")
QUANTIZE = Path(__file__).resolve().parents[2] / "examples" / "quantize.py"


@pytest.mark.slow
def test_smaller_models_detect_nearly_the_same(onnx_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(onnx_model, tmp_path / "model.onnx"))
    images = tmp_path / "images"
    images.mkdir()
    for index in range(4):
        coarse = np.random.default_rng(index).integers(0, 256, (16, 26, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((200, 120)).save(images / f"{index}.png")
    command = [sys.executable, str(QUANTIZE), str(model), str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    exact = ciod.load(model).predict(images / "0.png", score=0.3)
    for kind, smaller_than, share in (("fp16", 0.6, 0.9), ("int8", 0.6, 0.5)):
        small = tmp_path / f"model.{kind}.onnx"
        assert f"{small}: " in done.stdout and small.stat().st_size < smaller_than * model.stat().st_size
        loaded = ciod.load(small)
        assert loaded.classes == ("cat", "bus", "kite", "dog", "owl")
        found = loaded.predict(images / "0.png", score=0.25)
        apart = np.abs(exact.boxes[:, None] - found.boxes).max(axis=2)
        same = (exact.class_ids[:, None] == found.class_ids) & (apart < 4)
        assert same.any(axis=1).mean() > share, kind
