"""Real images and weights, in a folder `shared` beside the checkout; tests that need them skip where it is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
COCO_TINY = SHARED / "data" / "coco-tiny"
BCCD = SHARED / "data" / "bccd"
NEU_DET = SHARED / "data" / "neu-det"
YOLOX_NANO = SHARED / "weights" / "yolox_nano.pth"
YOLOX_NANO_ONNX = SHARED / "weights" / "yolox_nano.onnx"

needs_real_data = pytest.mark.skipif(
    not (COCO_TINY.is_dir() and YOLOX_NANO.is_file()),
    reason="needs real images and weights in ../shared; generated ones cover the same path in other tests",
)
