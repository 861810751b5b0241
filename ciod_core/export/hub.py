"""A detector as a folder that can be published: weights, an ONNX model, and a model card that says what they are.

The folder has the layout of the Hugging Face hub: `config.json`, `preprocessor_config.json`, `model.safetensors` and a
`README.md` whose YAML header the hub reads.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ciod_core import __version__
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.export.description import DEFAULT_NMS, NmsSettings
from ciod_core.export.export import export
from ciod_core.export.model_card import model_card
from ciod_core.files import WEIGHTS_IN_FOLDER
from ciod_core.model.checkpoint import CheckpointInfo, read_info
from ciod_core.temporaries import remove_dead, temporary_folder

ONNX_FILE = "model.onnx"
CARD_FILE = "README.md"


def export_to_hub(
    weights: Path,
    folder: Path,
    *,
    experiment: Experiment | None = None,
    run: RunRecord | None = None,
    license: str | None = None,
    nms: NmsSettings = DEFAULT_NMS,
) -> tuple[Path, ...]:
    """Write the folder; nothing of it stays behind where that fails.

    Args:
        weights: checkpoint of a run.
        folder: to write; it must not exist.
        experiment, run: where the weights belong; None: the card tells what the weights say about themselves.
        license: of the weights, as an identifier that the hub knows; None: that of the weights they were imported as.
        nms: thresholds of the suppression inside the ONNX model.

    Returns:
        its files.

    Raises:
        CheckpointError: weights or an evaluation's report that cannot be read.
        ExportError: the model cannot be converted, or gives other outputs.
        OSError: the folder exists or cannot be written.
    """
    info = read_info(weights)
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_dead(folder.parent)
    with temporary_folder(folder.parent) as temporary:
        new = temporary / folder.name
        new.mkdir()
        shutil.copyfile(weights, new / WEIGHTS_IN_FOLDER)
        export(weights, new / ONNX_FILE, nms=nms)
        for name, content in (("config.json", _config(info)), ("preprocessor_config.json", _preprocessing(info))):
            (new / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        card = model_card(info, new, name=folder.name, experiment=experiment, run=run, license=license)
        (new / CARD_FILE).write_text(card, encoding="utf-8")
        new.rename(folder)
    return tuple(sorted(folder.iterdir()))


def _config(info: CheckpointInfo) -> dict[str, Any]:
    names = info.classes.names
    return {
        "model_type": "ciod",
        "architecture": info.model.name,
        "ciod_version": __version__,
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "category_ids": list(info.classes.category_ids),
        "steps": [entry.step for entry in info.classes.entries],
    }


def _preprocessing(info: CheckpointInfo) -> dict[str, Any]:
    given = info.preprocessing
    size = {"longest_edge": given.image_size}
    if given.shorter_side is not None:
        size["shortest_edge"] = given.shorter_side
    return {
        "do_resize": True,
        "size": size,
        "resample": 2,  # bilinear
        "do_rescale": False,
        "do_normalize": False,
        "do_pad": True,
        "pad_size_divisor": given.stride_multiple,
        "pad_value": given.pad_value,
        "data_format": "channels_first",
    }
