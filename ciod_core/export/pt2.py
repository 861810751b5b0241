"""Export as a pt2 archive (torch.export): runs with torch and torchvision, without ciod."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import torch

from ciod_core.export.description import EXTRA_FILE, ExportDescription
from ciod_core.export.graph import build_graph, capture, quiet
from ciod_core.export.source import exported_file, load_source, nms_settings
from ciod_core.export.verify import answers_of, require_same_answers


def export_pt2(
    weights: Path,
    out: Path,
    *,
    nms: bool = True,
    score_threshold: float = 0.01,
    nms_iou: float = 0.65,
    max_detections: int = 100,
) -> ExportDescription:
    """Write a checkpoint as a pt2 archive and check that the written file answers like the detector.

    Batch size, height and width stay free; sides are multiples of 32 and at least 64. Load it with
    `torch.export.load`, after importing torchvision if the model has suppression. Input and outputs are those of
    `export_onnx`, in the same order; the description is the extra file `ciod.json`.

    Args:
        weights: checkpoint of a run.
        out: file to write; replaced when it exists.
        nms: put class-wise non-maximum suppression into the model.
        score_threshold: lowest score of a detection, with `nms`.
        nms_iou: IoU above which the lower of two boxes of a class goes, with `nms`.
        max_detections: rows of the output per image, with `nms`.

    Raises:
        CheckpointError: when the weights cannot be used.
        ConfigError: when a threshold is out of range.
        ExportError: when the model cannot be converted or written, or answers differently; nothing is left behind.
    """
    settings = nms_settings(score_threshold, nms_iou, max_detections) if nms else None
    detector, description = load_source(weights, settings)
    graph = build_graph(detector, description.classes.category_ids, settings)
    with exported_file(out, "torch.export") as temporary:
        program = capture(graph)
        # Saved by way of memory, because torch names the folder inside the archive after the file it writes.
        archive = BytesIO()
        with quiet():
            torch.export.save(program, archive, extra_files={EXTRA_FILE: description.model_dump_json()})
            temporary.write_bytes(archive.getvalue())
            reloaded = torch.export.load(temporary).module()
        require_same_answers(answers_of(graph), answers_of(reloaded), description, where=str(out))
    return description
