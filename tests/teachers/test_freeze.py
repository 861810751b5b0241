"""A frozen teacher in half precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ciod_core.model.common.folding import fold_batch_norm
from ciod_core.runtime.device import AUTOCAST_DTYPES, autocast
from ciod_core.teachers.network import freeze
from tests.helpers.networks import FAMILIES, lively


@pytest.mark.parametrize("precision", ["fp32", *AUTOCAST_DTYPES])
@pytest.mark.parametrize("name", FAMILIES)
def test_weights_in_the_precision_of_their_use_change_no_answer(name: str, precision: str) -> None:
    detector, cpu = lively(name), torch.device("cpu")
    frozen = freeze(copy.deepcopy(detector), cpu, channels_last=False, precision=precision)
    fold_batch_norm(detector)
    images = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad(), autocast(cpu, precision):
        expected, found = detector(images, features=True), frozen(images, features=True)
    torch.testing.assert_close(vars(found), vars(expected), rtol=0, atol=0)
    dtype = AUTOCAST_DTYPES.get(precision, torch.float32)
    assert {part.weight.dtype for part in frozen.modules() if isinstance(part, nn.Conv2d)} == {dtype}
    assert {part.weight.dtype for part in frozen.modules() if isinstance(part, nn.GroupNorm)} <= {torch.float32}
