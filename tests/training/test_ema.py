"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ciod_core.training.ema import WeightAverage


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def shift(network: nn.Module, amount: float) -> None:
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(amount)


def test_starts_as_an_own_copy(network: nn.Module) -> None:
    average = WeightAverage(network, 0.9)
    before = network.state_dict()["0.weight"].clone()
    shift(network, 5.0)
    assert torch.equal(average.state["0.weight"], before)


def test_the_formula_with_its_ramp(network: nn.Module) -> None:
    """v ← d·v + (1 − d)·w with d = min(decay, (1 + n) / (10 + n)), for parameters and running statistics."""
    average = WeightAverage(network, 0.5)
    for name in ("0.weight", "1.running_mean", "1.running_var"):
        assert name in average.state
    expected = {name: tensor.clone().double() for name, tensor in average.state.items()}
    for updates in range(1, 15):
        shift(network, float(updates))
        average.update(network, updates)
        decay = min(0.5, (1 + updates) / (10 + updates))
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
                torch.testing.assert_close(average.state[name].double(), expected[name], rtol=1e-5, atol=1e-5)
    assert (1 + 14) / (10 + 14) > 0.5 > (1 + 1) / (10 + 1), "both ends of the ramp were met"


def test_counters_are_copied(network: nn.Module) -> None:
    average = WeightAverage(network, 0.9)
    network(torch.rand(4, 3))
    network(torch.rand(4, 3))
    average.update(network, 1)
    assert int(average.state["1.num_batches_tracked"]) == 2


def test_the_model_is_left_alone(network: nn.Module) -> None:
    average = WeightAverage(network, 0.9)
    shift(network, 1.0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    average.update(network, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(tensor.requires_grad for tensor in average.state.values())
