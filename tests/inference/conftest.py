"""The checkpoint and the exports of `tests.export`."""

from tests.export.conftest import checkpoint, detector, onnx_model, raw_onnx_model

__all__ = ["checkpoint", "detector", "onnx_model", "raw_onnx_model"]
