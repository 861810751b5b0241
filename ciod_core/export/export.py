"""Export a checkpoint to a file that runs without ciod: an ONNX model or a pt2 archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from ciod_core.errors import CiodError, ConfigError, ExportError, did_you_mean
from ciod_core.export.description import DEFAULT_NMS, EXTRA_FILE, ExportDescription, InputFormat, NmsSettings
from ciod_core.export.graph import Suppression, build_graph, capture, quiet, suppress, suppress_in_turn
from ciod_core.export.onnx import require_packages, suppress_as_operator, write_onnx
from ciod_core.export.verify import Inference, inference_of, require_same_outputs
from ciod_core.files import atomic_path, sha256_of_file
from ciod_core.model.checkpoint import load_detector
from ciod_core.model.common.folding import fold_batch_norm
from ciod_core.temporaries import remove_dead

ExportFormat = Literal["onnx", "pt2"]


def export(
    weights: Path,
    out: Path,
    format: ExportFormat = "onnx",
    *,
    nms: NmsSettings | None = DEFAULT_NMS,
    fixed: bool = False,
) -> ExportDescription:
    """Write a checkpoint in another format and check that the written file gives the outputs of the detector.

    The input `images` is (batch, 3, height, width) float32, RGB in 0..255, sides padded to multiples of 32; all three
    sizes stay free, unless they are fixed. The outputs, boxes being xyxy in pixels of the input:

    - with `nms`: `boxes` (batch, rows, 4), `scores` (batch, rows) from high to low and `category_ids` (batch, rows)
      int64, the dataset's own ids; rows are max_detections for each head; unused ones have score 0 and id −1;
    - without: `boxes` (batch, anchors, 4), `scores` (batch, anchors, classes) and `category_ids` (classes).

    An ONNX model runs without torch; class table and preprocessing are in its metadata as JSON under the key `ciod`
    (`ExportDescription`). A pt2 archive has them in the extra file `ciod.json`; its sides are at least 64, and it is
    loaded with `torch.export.load`, after importing torchvision if it has suppression.

    Args:
        weights: checkpoint of a run.
        out: file to write; replaced when it exists.
        format: of the file.
        nms: thresholds of the class-wise non-maximum suppression inside the model; None leaves it out.
        fixed: one image, padded to a square of the image size, for runtimes that know no free sizes.

    Raises:
        CheckpointError: when the weights cannot be used.
        ConfigError: when the format is unknown.
        ExportError: when the model cannot be converted or written, or gives other outputs; nothing is left behind.
    """
    if format not in get_args(ExportFormat):
        raise ConfigError(f"`format`: unknown format '{format}'; {did_you_mean(format, get_args(ExportFormat))}")
    if format == "onnx":
        require_packages()
    detector, info = load_detector(weights, "cpu")
    detector.requires_grad_(False)
    given = info.preprocessing.model_dump()
    if fixed:
        multiple = info.preprocessing.stride_multiple
        given["stride_multiple"] = -(-info.preprocessing.image_size // multiple) * multiple
    description = ExportDescription(
        model=info.model.name,
        run=info.run,
        step=info.step,
        weights_sha256=sha256_of_file(weights),
        classes=info.classes,
        input=InputFormat(**given, fixed=fixed),
        nms=nms,
    )
    suppression: Suppression = suppress if fixed else suppress_in_turn
    write = _write_pt2
    if format == "onnx":
        suppression, write = suppress_as_operator, write_onnx
    category_ids = info.classes.category_ids
    with exported_file(out, "torch.onnx" if format == "onnx" else "torch.export") as temporary:
        folded = deepcopy(detector).eval()
        fold_batch_norm(folded)
        written = write(build_graph(folded, category_ids, nms, suppression), description, temporary)
        expected = inference_of(build_graph(detector, category_ids, nms))
        require_same_outputs(expected, written, description, where=str(out))
    return description


def _write_pt2(graph: nn.Module, description: ExportDescription, path: Path) -> Inference:
    program = capture(graph, description.input)
    # Saved by way of memory, because torch names the folder inside the archive after the file it writes.
    archive = BytesIO()
    with quiet():
        torch.export.save(program, archive, extra_files={EXTRA_FILE: description.model_dump_json()})
        path.write_bytes(archive.getvalue())
        return inference_of(torch.export.load(path).module())


@contextmanager
def exported_file(out: Path, converter: str) -> Iterator[Path]:
    """Lend a temporary path that becomes `out` only when the block, conversion and checks included, succeeds.

    Raises:
        ExportError: for whatever goes wrong inside; converters raise errors of every kind, many of several pages.
    """
    try:
        remove_dead(out.parent)
        with atomic_path(out) as temporary:
            yield temporary
    except CiodError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise ExportError(f"{out}: cannot be written ({reason}); check the folder and the free space") from error
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"{out}: {converter} of torch {torch.__version__} cannot export this model ({reason}); nothing was written"
        ) from error
