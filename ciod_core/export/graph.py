"""The detector as one graph from images to boxes in pixels, for runtimes without ciod.

Legend: B images, H height, W width, A anchor points, C classes, M rows of the fixed-size output, N surviving boxes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.fx.experimental import _config as symbolic_config
from torch.fx.experimental.symbolic_shapes import free_symbols
from torchvision.ops import nms

from ciod_core.export.description import PADDING_ID, InputFormat, NmsSettings
from ciod_core.model.base import Detector
from ciod_core.model.common.boxes import pairwise_iou
from ciod_core.model.common.nms import LARGEST_COORDINATE

# (boxes_BA4, scores_BCA, score_threshold, nms_iou, max_detections) → survivors_N3: image, class, anchor point.
Suppression = Callable[[Tensor, Tensor, float, float, int], Tensor]

NOISY_LOGGERS = ("onnx_ir", "onnxscript", "torch.onnx", "torch.export")


# What an exported model returns, a plain tuple because a pt2 archive cannot hold types of ciod:
# boxes: xyxy in pixels of the input; (B, A, 4), with suppression (B, M, 4).
# scores: those of `Predictions.scores`; (B, A, C), with suppression (B, M) from high to low, 0 in unused rows.
# category_ids: the dataset's ids, int64; (C,) for the score columns, with suppression (B, M), −1 in unused rows.
GraphOutput = tuple[Tensor, Tensor, Tensor]


class RawGraph(nn.Module):
    """Images to boxes and scores of all anchor points."""

    category_ids_C: Tensor

    def __init__(self, detector: Detector, category_ids: tuple[int, ...]) -> None:
        super().__init__()
        self.detector = detector
        self.register_buffer("category_ids_C", torch.tensor(category_ids, dtype=torch.int64))

    def forward(self, images: Tensor) -> GraphOutput:
        """(B, 3, H, W) float RGB in 0..255, H and W multiples of the detector's size multiple."""
        output = self.detector(images)
        return output.boxes_BA4, output.scores(), self.category_ids_C.clone()


class NmsGraph(nn.Module):
    """Images to the best detections of each image after class-wise non-maximum suppression."""

    def __init__(self, raw: RawGraph, settings: NmsSettings, suppression: Suppression) -> None:
        super().__init__()
        self.raw = raw
        self.settings = settings
        self.suppression = suppression

    def forward(self, images: Tensor) -> GraphOutput:
        """(B, 3, H, W) float RGB in 0..255, H and W as for `RawGraph`."""
        boxes_BA4, scores_BAC, category_ids_C = self.raw(images)
        settings = self.settings
        survivors_N3 = self.suppression(
            boxes_BA4, scores_BAC.transpose(1, 2), settings.score_threshold, settings.nms_iou, settings.max_detections
        )
        image_N, class_N, anchor_N = survivors_N3.unbind(1)
        surviving_N = scores_BAC[image_N, anchor_N, class_N]
        surviving_BAC = torch.zeros_like(scores_BAC).index_put((image_N, anchor_N, class_N), surviving_N)
        heads = [
            self._best(boxes_BA4, surviving_BAC[..., first : first + count], first)
            for first, count in self._head_columns()
        ]
        boxes_BM4, scores_BM, class_BM = (torch.cat(parts, dim=1) for parts in zip(*heads, strict=True))
        if len(heads) > 1:
            head_M = torch.arange(len(heads), device=class_BM.device).repeat_interleave(settings.max_detections)
            boxes_BM4, scores_BM, class_BM = self._yielding(boxes_BM4, scores_BM, class_BM, head_M)
        found_BM = scores_BM > 0
        return (
            torch.where(found_BM.unsqueeze(-1), boxes_BM4, 0.0),
            scores_BM,
            torch.where(found_BM, category_ids_C[class_BM], PADDING_ID),
        )

    def _head_columns(self) -> Iterator[tuple[int, int]]:
        """First class and number of classes of each head."""
        counts = self.raw.detector.head_classes
        return zip(accumulate(counts, initial=0), counts, strict=False)

    def _best(self, boxes_BA4: Tensor, surviving_BAC: Tensor, first_class: int) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and classes of the best survivors of one head, as many rows for every image."""
        rows = self.settings.max_detections
        num_classes = surviving_BAC.shape[2]
        # The padding guarantees as many candidates even where an image has fewer anchor points than that.
        scores_BM, position_BM = nn.functional.pad(surviving_BAC.flatten(1), (0, rows)).topk(rows, dim=1)
        found_BM = scores_BM > 0
        anchor_BM = torch.where(found_BM, position_BM // num_classes, 0)
        class_BM = torch.where(found_BM, position_BM % num_classes, 0) + first_class
        return boxes_BA4.gather(1, anchor_BM.unsqueeze(-1).expand(-1, -1, 4)), scores_BM, class_BM

    def _yielding(
        self, boxes_BM4: Tensor, scores_BM: Tensor, class_BM: Tensor, head_M: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The detections of all heads in order of score, without those that yield; as `join_heads` does it."""
        same_BMM = pairwise_iou(boxes_BM4, boxes_BM4) > self.settings.yield_iou
        better_BMM = scores_BM.unsqueeze(1) > scores_BM.unsqueeze(2)
        older_MM = head_M.unsqueeze(0) < head_M.unsqueeze(1)
        kept_BM = torch.where((same_BMM & better_BMM & older_MM).any(dim=2), 0.0, scores_BM)
        scores_BM, order_BM = kept_BM.topk(kept_BM.shape[1], dim=1)
        return boxes_BM4.gather(1, order_BM.unsqueeze(-1).expand(-1, -1, 4)), scores_BM, class_BM.gather(1, order_BM)


def suppress(
    boxes_BA4: Tensor, scores_BCA: Tensor, score_threshold: float, nms_iou: float, max_detections: int
) -> Tensor:
    """Survivors of class-wise suppression, (N, 3) int64: image, class, anchor point.

    One call serves all images and classes, because boxes of different ones are moved apart; in float64, since in
    float32 the shift would cost the digits that the threshold decides on. The shift is fixed, because a graph cannot
    compute the largest of no boxes. The cost grows with the square of the candidates, so a batch is better served by
    `suppress_in_turn`. All survivors are returned; `max_detections` is for runtimes that may stop early.
    """
    # Searched as the detector computes them, anchor points before classes: the other way takes twice as long or more.
    image_N, anchor_N, class_N = (scores_BCA.transpose(1, 2) >= score_threshold).nonzero(as_tuple=True)
    boxes_N4 = boxes_BA4[image_N, anchor_N].double().clamp(-LARGEST_COORDINATE, LARGEST_COORDINATE)
    group_N = (image_N * scores_BCA.shape[1] + class_N).double()
    # torchvision declares to torch.export that two boxes or more survive; two that lie apart from all make it true.
    apart_24 = torch.cat([boxes_N4.new_full((1, 4), shift * LARGEST_COORDINATE) for shift in (-5.0, -3.0)])
    apart_24 = apart_24 + torch.arange(4, device=apart_24.device) // 2 * LARGEST_COORDINATE
    keep = nms(
        torch.cat((boxes_N4 + (group_N * (2 * LARGEST_COORDINATE + 1)).unsqueeze(1), apart_24)),
        nn.functional.pad(scores_BCA[image_N, class_N, anchor_N].double(), (0, 2), value=-1.0),
        nms_iou,
    )
    return torch.stack((image_N, class_N, anchor_N), dim=1)[keep[keep < image_N.shape[0]]]


def suppress_in_turn(
    boxes_BA4: Tensor, scores_BCA: Tensor, score_threshold: float, nms_iou: float, max_detections: int
) -> Tensor:
    """As `suppress`, one image after the other, so that the cost grows with the number of images; only for capturing.

    The loop is a node of the captured graph: its number of images stays free.
    """

    def is_left(image: Tensor, _: Tensor) -> Tensor:
        return image < scores_BCA.shape[0]

    def suppress_one(image: Tensor, kept_BCA: Tensor) -> tuple[Tensor, Tensor]:
        index = int(image.item())
        torch._check(index >= 0)
        torch._check(index < scores_BCA.shape[0])
        boxes_1A4, scores_1CA = boxes_BA4.select(0, index).unsqueeze(0), scores_BCA.select(0, index).unsqueeze(0)
        first_N, class_N, anchor_N = suppress(boxes_1A4, scores_1CA, score_threshold, nms_iou, max_detections).unbind(1)
        kept_N = torch.ones_like(first_N, dtype=torch.bool)
        return image + 1, kept_BCA.index_put((first_N + image, class_N, anchor_N), kept_N)

    first = torch.zeros((), dtype=torch.int64, device=scores_BCA.device)
    _, kept_BCA = while_loop(is_left, suppress_one, (first, torch.zeros_like(scores_BCA, dtype=torch.bool)))
    return kept_BCA.nonzero()


def build_graph(
    detector: Detector, category_ids: tuple[int, ...], settings: NmsSettings | None, suppression: Suppression = suppress
) -> nn.Module:
    """The graph with or without suppression, in evaluation mode."""
    raw = RawGraph(detector, category_ids)
    return (raw if settings is None else NmsGraph(raw, settings, suppression)).eval()


def capture(graph: nn.Module, given: InputFormat) -> ExportedProgram:
    """Trace a graph for any batch size, and any height and width that are 2, 3, … times the input's multiple.

    Sides of once the multiple are left out because torch.export treats sizes of 1 as constants. A fixed input is one
    square image.
    """
    multiple = given.stride_multiple
    if given.fixed:
        shapes, example = None, torch.zeros(1, 3, multiple, multiple)
    else:
        sides = {2: multiple * Dim("rows", min=2), 3: multiple * Dim("columns", min=2)}
        shapes, example = {"images": {0: Dim("batch", min=1)} | sides}, torch.zeros(2, 3, 2 * multiple, 3 * multiple)
    # Maps of a single cell, on coarse levels of small images, are as dynamic as all others.
    with torch.no_grad(), quiet(), symbolic_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(graph, (example,), dynamic_shapes=shapes)
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, GraphModule)]
    nodes = [node for part in graphs for node in part.nodes]
    for node in nodes:
        # Stack traces would carry the folder names of this machine into the file.
        node.meta.pop("stack_trace", None)
    # A loop is traced twice, and torch warns whoever loads the file of sizes that only the first trace had.
    sizes = free_symbols([node.meta.get("val") for node in nodes])
    for size in [size for size in program.range_constraints if not size.free_symbols & sizes]:
        del program.range_constraints[size]
    return program


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters print (progress, advice to their developers, on failure the whole graph) from the user."""
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
