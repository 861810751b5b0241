"""Make an exported ONNX model smaller with onnxruntime's own tools, and measure what that costs.

    ciod export step2.safetensors --format onnx --score 0.001
    python examples/quantize.py step2.onnx path/to/training/images --val path/to/val.json path/to/val/images

Writes step2.fp16.onnx (half the size; for GPUs and other accelerators) and step2.int8.onnx (about a third; convolutions
with 8-bit weights and activations, whose ranges come from a hundred of the images). With `--val` prints the COCO AP of
all three on labeled images.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import ciod

CALIBRATION_IMAGES = 100
# Convolutions that stay in single precision: the first ones, which see pixels, and the last ones, which predict.
EXACT = (".backbone.stem.", ".backbone.stage2.", ".backbone.layer1.", "_conv.weight")
SUFFIXES = (".jpg", ".jpeg", ".png")


class Calibration(CalibrationDataReader):
    """Images as the model sees them, one by one."""

    def __init__(self, images: list[Path], description: dict[str, dict[str, int]]) -> None:
        self._inputs = self._prepared(images, description["input"])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input, until there is none."""
        return next(self._inputs, None)

    @staticmethod
    def _prepared(images: list[Path], given: dict[str, int]) -> Iterator[dict[str, np.ndarray]]:
        size, multiple = given["image_size"], given["stride_multiple"]
        for path in images:
            image = Image.open(path).convert("RGB")
            image.thumbnail((size, size))
            width, height = (-(-side // multiple) * multiple for side in image.size)
            padded = np.full((height, width, 3), given["pad_value"], dtype=np.float32)
            padded[: image.height, : image.width] = image
            yield {"images": padded.transpose(2, 0, 1)[None]}


def write_fp16(model: Path, out: Path) -> None:
    """Weights and arithmetic in half precision; boxes and NMS stay in single precision."""
    exact = ["NonMaxSuppression", "TopK", "Resize", "Range", "Exp"]
    onnx.save(convert_float_to_float16(onnx.load(model), keep_io_types=True, op_block_list=exact), out)


def is_exact(node: onnx.NodeProto) -> bool:
    """Whether a convolution must not lose digits."""
    return node.op_type == "Conv" and any(part in node.input[1] for part in EXACT)


def write_int8(model: Path, out: Path, images: list[Path]) -> None:
    """Convolutions with 8-bit weights and activations."""
    loaded = onnx.load(model)
    description = json.loads(next(entry.value for entry in loaded.metadata_props if entry.key == "ciod"))
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            out,
            Calibration(images[:CALIBRATION_IMAGES], description),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[node.name for node in loaded.graph.node if is_exact(node)],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    # The quantizer drops what the model says about itself.
    quantized = onnx.load(out)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(loaded.metadata_props)
    onnx.save(quantized, out)


def average_precision(model: Path, annotations: Path, images: Path) -> float:
    """COCO AP on labeled images."""
    with contextlib.redirect_stdout(None):
        truth = COCO(str(annotations))
    detector = ciod.load(model)
    found = []
    for image in truth.loadImgs(truth.getImgIds()):
        (result,) = detector.predict([images / image["file_name"]], score=0.001)
        found += result.to_coco(image["id"])
    if not found:
        return 0.0
    with contextlib.redirect_stdout(None):
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def main() -> None:
    """Write both models; measure all three where there are labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="exported with `ciod export --format onnx`")
    parser.add_argument("images", type=Path, help="folder of images like those that the model will see")
    parser.add_argument("--val", type=Path, nargs=2, metavar=("ANNOTATIONS", "IMAGES"), help="labeled images")
    arguments = parser.parse_args()

    images = sorted(path for path in arguments.images.rglob("*") if path.suffix.lower() in SUFFIXES)
    fp16, int8 = (arguments.model.with_suffix(f".{kind}.onnx") for kind in ("fp16", "int8"))
    write_fp16(arguments.model, fp16)
    write_int8(arguments.model, int8, images)
    for path in (arguments.model, fp16, int8):
        ap = f"  AP {100 * average_precision(path, *arguments.val):.1f}" if arguments.val else ""
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB{ap}")


if __name__ == "__main__":
    main()
