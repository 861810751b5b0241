"""Weights of ciod, run by torch.

Legend: B images, H height, W width.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ciod_core.config.schema import EvaluationConfig
from ciod_core.inference.detector import FrameDetections, LoadedDetector
from ciod_core.model.checkpoint import load_detector
from ciod_core.runtime.device import pick_device


class TorchDetector(LoadedDetector):
    """A detector from a checkpoint.

    Attributes:
        network: a `torch.nn.Module` in evaluation mode.
        info: the description of the checkpoint: classes, preprocessing and origin.
        device: where it computes.
    """

    def __init__(self, path: Path, device: torch.device | str = "auto") -> None:
        """Load a checkpoint.

        Raises:
            CheckpointError: weights that cannot be read.
            ConfigError: no such device here.
        """
        self.device = pick_device(device)
        self.network, self.info = load_detector(path, self.device)
        self._nms = EvaluationConfig()
        super().__init__(path, self.info.classes, self.info.preprocessing, least_score=0.0)

    @torch.inference_mode()
    def _infer(self, images_B3HW: npt.NDArray[np.uint8], score: float) -> list[FrameDetections]:
        found = self.network.detect(
            self.network(torch.from_numpy(images_B3HW).to(self.device)),
            score_threshold=score,
            nms_iou=self._nms.nms_iou,
            max_detections=self._nms.max_detections,
            yield_iou=self._nms.yield_iou,
        )
        return [
            FrameDetections(image.boxes_D4.cpu().numpy(), image.scores_D.cpu().numpy(), image.labels_D.cpu().numpy())
            for image in found
        ]
