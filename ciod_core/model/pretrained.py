"""Weights for the backbone: ImageNet's by name, or a file; nothing in a file is ever executed."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

from torch import Tensor
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from ciod_core.config.schema import ModelConfig
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.model.base import Detector
from ciod_core.model.common.backbones import ResNet
from ciod_core.model.foreign import read_tensors
from ciod_core.model.registry import DETECTORS


def load_backbone_weights(detector: Detector, config: ModelConfig) -> None:
    """Fill the backbone as `model.backbone_weights` says; classifier weights in the source are left aside.

    Raises:
        ConfigError: ImageNet weights asked for a backbone that has none.
        CheckpointError: a file that is missing, unreadable or of another network.
    """
    if not config.pretrained:
        return
    named = config.backbone_weights in ("auto", "imagenet")
    if named:
        state = _download_imagenet(config)
    else:
        tensors = read_tensors(Path(config.backbone_weights), "`model.backbone_weights`: ")
        state = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
    if isinstance(detector.backbone, ResNet):
        state = _torchvision_to_backbone(state)
    own = detector.backbone.state_dict()
    # Counters of batches seen are absent from some published files and steer nothing.
    needed = {name: tensor.shape for name, tensor in own.items() if not name.endswith("num_batches_tracked")}
    unfit = [name for name, shape in needed.items() if name not in state or state[name].shape != shape]
    if unfit:
        raise CheckpointError(
            f"`model.backbone_weights`: {config.backbone_weights} does not fit {config.name} "
            f"({len(unfit)} tensors missing or of another shape, first: {unfit[0]}); pass weights of that network"
        )
    detector.backbone.load_state_dict({name: state[name] for name in own if name in state}, strict=False)


def _download_imagenet(config: ModelConfig) -> dict[str, Tensor]:
    network = DETECTORS[config.name].imagenet
    if network is None:
        raise ConfigError(
            f"`model.backbone_weights`: no ImageNet weights are published for {config.name}; pass 'none' or a file"
        )
    weights = ResNet18_Weights.IMAGENET1K_V1 if network == "resnet18" else ResNet50_Weights.IMAGENET1K_V1
    try:
        # torch.hub says on stdout, which has results alone, that it downloads.
        with redirect_stdout(sys.stderr):
            state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"`model.backbone_weights`: ImageNet weights could not be downloaded ({error}); "
            f"pass a local file of {weights.url} as `model.backbone_weights`, or 'none'"
        ) from error
    return state


def _torchvision_to_backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    stem = {"conv1.": "stem.0.", "bn1.": "stem.1."}
    renamed = {}
    for name, tensor in state.items():
        prefix = next((old for old in stem if name.startswith(old)), "")
        renamed[stem.get(prefix, "") + name.removeprefix(prefix)] = tensor
    return {name: tensor for name, tensor in renamed.items() if not name.startswith("fc.")}
