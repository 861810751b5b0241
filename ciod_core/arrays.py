"""Types of the NumPy arrays that cross module borders."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
UInt8Array = npt.NDArray[np.uint8]
TextArray = npt.NDArray[np.object_]
"""Texts. NumPy's own type for them gives each the room of the longest."""


def text_array(texts: Iterable[str]) -> TextArray:
    """An array of texts, shape (N,)."""
    return np.array(list(texts), dtype=np.object_)
