"""The switches of reproducibility hold inside the block and only there."""

from __future__ import annotations

import pytest
import torch

from ciod_core.runtime.determinism import reproducible


def switches() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


@pytest.mark.parametrize("strict", [True, False])
def test_switches_come_back_whatever_happens(strict: bool) -> None:
    before = switches()
    with pytest.raises(ZeroDivisionError), reproducible(1, strict=strict):
        assert torch.are_deterministic_algorithms_enabled() is (strict or before[0])
        raise ZeroDivisionError
    assert switches() == before


def test_the_seed_decides_random_numbers() -> None:
    draws = []
    for seed in (5, 5, 6):
        with reproducible(seed, strict=True):
            draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
