"""Compare the outputs of an exported file with those of the detector it was exported from.

Legend: B images, A anchor points, C classes, M rows of the fixed-size output, N detections, K others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ciod_core.errors import ExportError
from ciod_core.export.description import ExportDescription, InputFormat

Outputs = tuple[np.ndarray, np.ndarray, np.ndarray]
Inference = Callable[[np.ndarray], Outputs]

SCORE_TOLERANCE = 1e-4
BOX_ATOL = 0.01
BOX_RTOL = 1e-3
# Rounding may flip a suppression whose IoU lies on the threshold, hence a few detections may differ.
AGREEING_SHARE = 0.98


def check_images(given: InputFormat) -> list[np.ndarray]:
    """Batches to compare outputs on: one image of noise; three structured ones of another size, or one at a time."""
    rng, size_multiple = np.random.default_rng(0), given.stride_multiple
    if given.fixed:
        noise_1 = rng.uniform(0, 255, (1, 3, size_multiple, size_multiple)).astype(np.float32)
        return [noise_1, *(_structured_image(rng, size_multiple, size_multiple)[np.newaxis] for _ in range(3))]
    # Twice the multiple is the smallest side that a pt2 archive accepts.
    longer = max(given.image_size, 2 * size_multiple)
    shorter = max(longer * 5 // 8 // size_multiple, 2) * size_multiple
    noise_1 = rng.uniform(0, 255, (1, 3, longer, longer)).astype(np.float32)
    return [noise_1, np.stack([_structured_image(rng, shorter, longer) for _ in range(3)])]


def inference_of(graph: nn.Module) -> Inference:
    """A graph as a function of NumPy arrays."""

    def infer(images: np.ndarray) -> Outputs:
        with torch.no_grad():
            boxes, scores, category_ids = graph(torch.from_numpy(images))
        return boxes.numpy(), scores.numpy(), category_ids.numpy()

    return infer


def require_same_outputs(
    expected: Inference, exported: Inference, description: ExportDescription, *, where: str
) -> None:
    """Compare an exported model with the original on every check image.

    Raises:
        ExportError: naming the output that differs.
    """
    agree = _same_raw if description.nms is None else _same_detections
    for images in check_images(description.input):
        wanted, got = expected(images), exported(images)
        for name, one, other in zip(description.output_names, wanted, got, strict=True):
            if one.shape != other.shape or one.dtype != other.dtype:
                raise ExportError(
                    f"{where}: output '{name}' is {other.dtype}{list(other.shape)} instead of "
                    f"{one.dtype}{list(one.shape)}; nothing was written"
                )
        difference = agree(wanted, got)
        if difference is not None:
            raise ExportError(
                f"{where}: the exported model does not give the outputs of the detector ({difference} in a batch of "
                f"{len(images)}); nothing was written; try another version of torch or onnxruntime"
            )


def _same_raw(wanted: Outputs, got: Outputs) -> str | None:
    if not _close_boxes(wanted[0], got[0]).all():
        return "boxes differ"
    if not np.allclose(wanted[1], got[1], rtol=0, atol=SCORE_TOLERANCE):
        return "scores differ"
    return None if np.array_equal(wanted[2], got[2]) else "category ids differ"


def _same_detections(wanted: Outputs, got: Outputs) -> str | None:
    for image in range(len(wanted[0])):
        one = tuple(column[image] for column in wanted)
        other = tuple(column[image] for column in got)
        if ((other[1] == 0) != (other[2] < 0)).any():
            return "unused rows are not marked"
        for left, right in ((one, other), (other, one)):
            if _share_found(left, right) < AGREEING_SHARE:
                return "detections differ"
    return None


def _share_found(searched: tuple[np.ndarray, ...], among: tuple[np.ndarray, ...]) -> float:
    """Share of detections that have a counterpart; those that tie with the last row may have fallen off the end."""
    last_score = min(float(searched[1][-1]), float(among[1][-1]))
    certain_N = searched[1] > last_score + SCORE_TOLERANCE
    if not certain_N.any():
        return 1.0
    boxes_N14, scores_N1, ids_N1 = (column[certain_N][:, None] for column in searched)
    same_NK = (ids_N1 == among[2]) & (np.abs(scores_N1 - among[1]) <= SCORE_TOLERANCE)
    return float((same_NK & _close_boxes(boxes_N14, among[0]).all(axis=-1)).any(axis=1).mean())


def _close_boxes(wanted: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Edge by edge; infinite edges, which an untrained detector may have, are close to themselves."""
    return np.isclose(got, wanted, rtol=BOX_RTOL, atol=BOX_ATOL)


def _structured_image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Rectangles and discs of random colors on a gradient, with a little noise so that no two places are equal."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    image_3HW = rng.uniform(0, 200, (3, 1, 1)) + rng.uniform(-50, 50, (3, 1, 1)) * (x / width + y / height)
    for _ in range(12):
        center_x, center_y = rng.uniform(0, width), rng.uniform(0, height)
        half_x, half_y = rng.uniform(4, width / 4), rng.uniform(4, height / 4)
        apart_x, apart_y = np.abs(x - center_x) / half_x, np.abs(y - center_y) / half_y
        inside = apart_x**2 + apart_y**2 < 1 if rng.random() < 0.5 else np.maximum(apart_x, apart_y) < 1
        image_3HW = np.where(inside, rng.uniform(0, 255, (3, 1, 1)), image_3HW)
    noisy_3HW = image_3HW + rng.normal(0, 4, image_3HW.shape)
    return noisy_3HW.clip(0, 255).astype(np.float32)
