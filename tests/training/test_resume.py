"""The state of an unfinished run: it comes back whole, or with one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ciod_core.config.schema import TrainingConfig
from ciod_core.errors import CheckpointError
from ciod_core.training import keeping
from ciod_core.training.keeping import StateKeeper
from ciod_core.training.optimizer import build_optimizer
from ciod_core.training.resume import (
    PREVIOUS_STATE_FILE,
    STATE_FILE,
    StateOwner,
    TrainingState,
    load_state,
    make_newest,
    optimizer_tensors,
    restore_optimizer,
    save_state,
)


class Network(nn.Sequential):
    """All that an optimizer needs of a detector."""

    def head_parameters(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.named_parameters() if not name.startswith("0.")}

    @property
    def backbone(self) -> nn.Module:
        return self[0]


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_state(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder / STATE_FILE) in message
    return message


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    parts = {"student": {"a.b": torch.rand(20, 30), "count": torch.tensor(7)}, "scaler": {"scale": torch.tensor(2.0)}}
    save_state(tmp_path, TrainingState(4, 1.0, (), parts))
    return tmp_path


def test_round_trip(tmp_path: Path) -> None:
    image = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    parts = {"student": {"x/y.z": image, "count": torch.tensor(7)}, "average": {"half": torch.rand(3).half()}}
    save_state(tmp_path, TrainingState(2, 1.25, ("b.jpg", "a.jpg"), parts))
    state = load_state(tmp_path)
    found = state.parts
    assert (state.epochs_done, state.seconds, state.skipped_images) == (2, 1.25, ("b.jpg", "a.jpg"))
    assert {part: list(group) for part, group in found.items()} == {
        "student": sorted(["x/y.z", "count"]), "average": ["half"],
    }  # fmt: skip
    for part, group in parts.items():
        for name, tensor in group.items():
            assert torch.equal(found[part][name], tensor) and found[part][name].dtype == tensor.dtype


def test_a_later_state_replaces_the_earlier_one(saved: Path) -> None:
    save_state(saved, TrainingState(5, 1.0, (), {"student": {"a": torch.ones(2)}}))
    state = load_state(saved)
    assert state.epochs_done == 5 and list(state.parts) == ["student"]
    names = {path.name for path in (saved / STATE_FILE).parent.iterdir()}
    assert names == {STATE_FILE.name, PREVIOUS_STATE_FILE.name}


def test_a_damaged_state_is_replaced_by_the_one_before(saved: Path) -> None:
    save_state(saved, TrainingState(5, 1.0, (), {"student": {"a": torch.ones(200)}}))
    content = bytearray((saved / STATE_FILE).read_bytes())
    content[-7] ^= 1
    (saved / STATE_FILE).write_bytes(content)
    state = load_state(saved)
    assert state.epochs_done == 4 and state.stands_in_for is not None
    assert state.stands_in_for.startswith(f"{saved / STATE_FILE} is damaged: its content does not have its checksum")
    make_newest(saved, state)
    again = load_state(saved)
    assert (again.epochs_done, again.stands_in_for) == (4, None)


def test_a_process_that_is_killed_while_it_replaces_the_last_state_leaves_the_one_before(saved: Path) -> None:
    (saved / STATE_FILE).rename(saved / PREVIOUS_STATE_FILE)
    state = load_state(saved)
    assert (state.epochs_done, state.stands_in_for) == (4, None)
    save_state(saved, TrainingState(5, 1.0, (), {}))
    assert load_state(saved).epochs_done == 5


def test_no_state(tmp_path: Path) -> None:
    assert "no epoch was completed" in refusal(tmp_path)


@pytest.mark.parametrize("write", [False, True])
def test_states_are_written_as_often_as_costs_little(
    write: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(1000))  # every look at the clock takes one, and so writing takes one
    monkeypatch.setattr(keeping.time, "monotonic", lambda: next(seconds))
    weights, written = torch.zeros(2), []
    with StateKeeper(tmp_path, StateOwner(run="a", config={}, inputs={})) as keeper:
        for epoch in range(1, 150):
            weights += 1
            keeper.keep(TrainingState(epoch, 0.0, (), {"student": {"w": weights}}), write=write and epoch == 7)
            if load_state(tmp_path).epochs_done == epoch:
                written.append(epoch)
    assert written[: 2 + write] == ([1, 7, 57] if write else [1, 51])


def test_what_was_not_written_is_written_when_training_fails(tmp_path: Path) -> None:
    weights = torch.zeros(2)
    with (
        pytest.raises(KeyboardInterrupt),
        StateKeeper(tmp_path, StateOwner(run="a", config={}, inputs={})) as keeper,
    ):
        for epoch in (1, 2, 3):
            weights += 1
            keeper.keep(TrainingState(epoch, 0.0, (), {"student": {"w": weights}}), write=epoch == 1)
        weights += 1  # in the middle of an epoch
        raise KeyboardInterrupt
    state = load_state(tmp_path)
    assert state.epochs_done == 3 and state.parts["student"]["w"].tolist() == [3.0, 3.0]
    assert state.owner is not None and state.owner.run == "a"


def test_a_truncated_state(saved: Path) -> None:
    content = (saved / STATE_FILE).read_bytes()
    for length in (0, 5, 60, len(content) - 1):
        (saved / STATE_FILE).write_bytes(content[:length])
        assert "damaged" in refusal(saved)


def test_a_state_of_something_else(saved: Path) -> None:
    (saved / STATE_FILE).write_bytes(b"this is no safetensors file at all, however long it is")
    assert "damaged" in refusal(saved)
    save_file({"student/a": torch.ones(2)}, saved / STATE_FILE)
    assert "no training state" in refusal(saved)
    save_file({"student/a": torch.ones(2)}, saved / STATE_FILE, metadata={"ciod-state": "not json"})
    assert "damaged" in refusal(saved)
    save_file({"student/a": torch.ones(2)}, saved / STATE_FILE, metadata={"ciod-state": '{"epochs_done": 1}'})
    assert "damaged" in refusal(saved), "version 1 has a clock among the tensors"
    save_file({"no part": torch.ones(2)}, saved / STATE_FILE, metadata={"ciod-state": '{"epochs_done": 1}'})
    assert "damaged" in refusal(saved)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_optimizer_goes_on_bit_by_bit(optimizer: str, memory_format: torch.memory_format, tmp_path: Path) -> None:
    """Also where weights lie channels-last: the state must come back in the layout the fused step expects."""

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network: Any = Network(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        network = network.to(memory_format=memory_format)
        return network, build_optimizer(network, TrainingConfig(optimizer=optimizer, lr=0.1, momentum=0.9))

    def step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).to(memory_format=memory_format)
        optimizer.zero_grad()
        network(images).square().sum().backward()
        optimizer.step()

    network, first = make()
    for seed in range(3):
        step(network, first, seed)
    save_state(tmp_path, TrainingState(1, 0.0, (), {"n": network.state_dict(), "o": optimizer_tensors(first)}))

    again, second = make()
    parts = load_state(tmp_path).parts
    again.load_state_dict(parts["n"])
    restore_optimizer(second, parts["o"])
    for seed in range(3, 6):
        step(network, first, seed)
        step(again, second, seed)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_settings_are_those_of_the_new_optimizer() -> None:
    network: Any = Network(nn.Linear(2, 2))
    old = build_optimizer(network, TrainingConfig(optimizer="adamw", lr=0.1, weight_decay=0.5))
    network(torch.rand(1, 2)).sum().backward()
    old.step()
    new = build_optimizer(network, TrainingConfig(optimizer="adamw", lr=0.2, weight_decay=0.25))
    restore_optimizer(new, optimizer_tensors(old))
    assert {(group["lr"], group["weight_decay"]) for group in new.param_groups} == {(0.2, 0.25), (0.2, 0.0)}
    state = new.state[network[0].weight]
    assert torch.equal(state["exp_avg"], old.state[network[0].weight]["exp_avg"]) and float(state["step"]) == 1
