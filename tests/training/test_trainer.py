"""The training loop: what one step does to the weights, and what a resumed loop has to equal."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ciod_core.data.loading.dataset import Batch
from ciod_core.errors import CiodError
from ciod_core.methods.base import supervised
from ciod_core.model.base import Detector
from ciod_core.runtime.determinism import reproducible
from ciod_core.runtime.device import AUTOCAST_DTYPES
from ciod_core.teachers.network import NetworkTeacher
from ciod_core.training.resume import load_state, save_state
from ciod_core.training.trainer import Trainer
from tests.helpers.listeners import RecordKeeper
from tests.helpers.networks import levels_of

MakeTrainer = Callable[..., Trainer]


def train(trainer: Trainer, epochs: int) -> dict[str, Tensor]:
    with reproducible(3, strict=True):
        for _ in range(epochs):
            trainer.train_epoch()
    return {name: tensor.clone() for name, tensor in trainer.weights.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    different = [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]
    assert not different, f"{len(different)} of {len(expected)} differ, first {different[0]}"


RESUMABLE: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw"},
    "adamw, channels last": {"optimizer": "adamw", "channels_last": True},
    "sgd, channels last": {"optimizer": "sgd", "channels_last": True},
    "adamw without average": {"optimizer": "adamw", "ema_decay": 0.0},
    "bf16": {"optimizer": "adamw", "precision": "bf16"},
}


@pytest.mark.parametrize("settings", RESUMABLE.values(), ids=RESUMABLE.keys())
def test_resumed_from_disk_equals_uninterrupted_bit_by_bit(
    settings: dict[str, Any], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer(**settings)
    train(trainer, 1)
    save_state(tmp_path, trainer.state())
    expected = train(trainer, 1)

    resumed = make_trainer(**settings)
    resumed.restore(load_state(tmp_path))
    assert resumed.epochs_done == 1
    assert_same(train(resumed, 1), expected)
    assert_same(resumed.student.state_dict(), trainer.student.state_dict())


def test_student_and_teacher_are_compiled_where_settings_say_so(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not how: generating code for a CPU takes minutes. `tests/model/test_compiled.py` traces the networks."""
    called: list[nn.Module] = []

    def compile_without_code(network: nn.Module, *, dynamic: bool) -> None:
        def call(*images: Tensor, **options: Any) -> object:
            called.append(network)
            return network.forward(*images, **options)

        assert not dynamic
        network._compiled_call_impl = call  # type: ignore[assignment]

    monkeypatch.setattr(nn.Module, "compile", compile_without_code)
    expected = train(make_trainer(), 1)
    assert not called
    trainer = make_trainer(compile=True)
    assert_same(train(trainer, 1), expected)
    assert isinstance(trainer.teacher, NetworkTeacher)
    assert called == [trainer.student, trainer.teacher.detector] * 3


def test_the_loss_scale_of_fp16_is_resumed(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(precision="fp16")
    trainer.scaler.scale(torch.ones(()))
    trainer.scaler.update(1024.0)
    save_state(tmp_path, trainer.state())
    resumed = make_trainer(precision="fp16")
    resumed.restore(load_state(tmp_path))
    assert float(resumed.scaler.scale(torch.ones(()))) == 1024.0
    assert resumed.scaler.state_dict() == trainer.scaler.state_dict()


def test_another_seed_gives_other_weights(make_trainer: MakeTrainer) -> None:
    """So equality above is no matter of course."""
    first, second = train(make_trainer(seed=3), 1), train(make_trainer(seed=4), 1)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_the_teacher_stays_as_it_was(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    assert isinstance(trainer.teacher, NetworkTeacher)
    teacher = trainer.teacher.detector
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    train(trainer, 2)
    assert_same(teacher.state_dict(), before)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not torch.equal(trainer.student.backbone.stem[1][0].weight, before["backbone.stem.1.0.weight"])


def test_a_teacher_in_half_precision_also_annotates(make_trainer: MakeTrainer) -> None:
    known = {}
    for precision in ("fp32", "bf16"):
        teacher = make_trainer(precision=precision).teacher
        assert isinstance(teacher, NetworkTeacher)
        known[precision] = next(teacher.annotate([0]))
        (dtype,) = {part.weight.dtype for part in teacher.detector.modules() if isinstance(part, nn.Conv2d)}
        assert dtype == AUTOCAST_DTYPES.get(precision, torch.float32)
    assert len(known["fp32"]) > 0 and abs(len(known["bf16"]) - len(known["fp32"])) < len(known["fp32"])
    assert not torch.equal(known["bf16"].boxes_K4[:1], known["fp32"].boxes_K4[:1])


def test_records_tell_the_losses_and_what_the_teacher_gave(make_trainer: MakeTrainer) -> None:
    notes = RecordKeeper()
    trainer = make_trainer(listener=notes, log_interval=2)
    train(trainer, 2)
    assert trainer.iterations_per_epoch == 3 and trainer.iterations == 6
    assert [(record.epoch, record.iteration) for record in notes.records] == [(1, 2), (1, 3), (2, 4), (2, 6)]
    for record in notes.records:
        parts = [value for name, value in record.losses.items() if name != "loss"]
        assert record.losses["loss"] == pytest.approx(sum(parts), rel=1e-4)
        assert {"class", "box", "objectness", "old class", "old box"} <= record.losses.keys()
        assert record.kept_per_image is not None and record.kept_per_image > 0
        assert record.images_per_second > 0 and record.eta_seconds >= 0 and 0 <= record.data_wait_share <= 1
    assert notes.records[-1].eta_seconds == 0


def test_without_a_teacher_nothing_is_kept(make_trainer: MakeTrainer) -> None:
    notes = RecordKeeper()
    train(make_trainer("finetune", listener=notes), 1)
    assert {record.kept_per_image for record in notes.records} == {None}
    assert notes.records[0].losses.keys() == {"loss", "class", "box", "objectness"}


def test_training_lowers_the_loss(make_trainer: MakeTrainer) -> None:
    notes = RecordKeeper()
    train(make_trainer("finetune", listener=notes, epochs=6, log_interval=3), 6)
    assert len(notes.records) == 6
    assert notes.records[-1].losses["loss"] < 0.8 * notes.records[0].losses["loss"]


def movement(make_trainer: MakeTrainer, clip_grad_norm: float) -> float:
    """How far one step of plain SGD with lr 1 moves the weights: the length of the gradient it used."""
    trainer = make_trainer(
        "finetune", optimizer="sgd", lr=1.0, momentum=0.0, weight_decay=0.0, warmup_iterations=0,
        clip_grad_norm=clip_grad_norm, ema_decay=0.0,
    )  # fmt: skip
    before = [parameter.detach().clone() for parameter in trainer.student.parameters()]
    trainer.student.train()
    trainer._learn_from(next(iter(trainer.load_epoch(0))), share=1.0)
    trainer._update(lr=1.0, trunk_rate=1.0, iteration=0)
    moved = [old - new.detach() for old, new in zip(before, trainer.student.parameters(), strict=True)]
    return float(torch.stack([part.double().norm() for part in moved]).norm())


def test_gradients_are_clipped_to_their_norm(make_trainer: MakeTrainer) -> None:
    free = movement(make_trainer, 0.0)
    assert free > 1.0
    assert movement(make_trainer, free / 4) == pytest.approx(free / 4, rel=1e-3)
    assert movement(make_trainer, 10 * free) == pytest.approx(free, rel=1e-3)


def test_the_learning_rate_reaches_the_optimizer(make_trainer: MakeTrainer) -> None:
    notes = RecordKeeper()
    trainer = make_trainer("finetune", listener=notes, epochs=2, schedule="cosine", warmup_iterations=0, log_interval=1)
    train(trainer, 2)
    expected = [1e-3 * (0.01 + 0.99 * (1 + math.cos(math.pi * iteration / 6)) / 2) for iteration in range(6)]
    assert [record.lr for record in notes.records] == pytest.approx(expected)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {notes.records[-1].lr}


def test_gradients_of_several_batches_make_one_update(make_trainer: MakeTrainer) -> None:
    """Three batches, two by two: the last update of the epoch has a single one."""
    trainer = make_trainer(
        "finetune", optimizer="sgd", lr=0.01, momentum=0.0, weight_decay=0.0, warmup_iterations=0, schedule="step",
        clip_grad_norm=0.0, ema_decay=0.0, accumulate=2,
    )  # fmt: skip
    # Batch statistics are those of each batch by itself; here they stay as they are.
    trainer.student.keep_statistics()
    plain = copy.deepcopy(trainer.student)
    batches = list(trainer.load_epoch(0))
    assert len(batches) == 3
    for group in (batches[:2], batches[2:]):
        losses = [total_loss(plain.train(), batch) for batch in group]
        gradients = torch.autograd.grad(torch.stack(losses).mean(), list(plain.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(plain.parameters(), gradients, strict=True):
                parameter -= 0.01 * gradient
    train(trainer, 1)
    for name, parameter in trainer.student.named_parameters():
        torch.testing.assert_close(parameter, plain.get_parameter(name), rtol=1e-3, atol=1e-6)


def total_loss(student: Detector, batch: Batch) -> Tensor:
    """What fine-tuning minimizes."""
    losses = supervised(
        student, student(batch.images_B3HW.contiguous(memory_format=torch.channels_last)), batch.targets
    )
    return torch.stack(list(losses.values())).sum()


def test_the_recipe_of_the_published_optimizer(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("finetune", optimizer="sgd", nesterov=False, decay_all=True, weight_decay=0.25)
    assert {(group["nesterov"], group["weight_decay"]) for group in trainer.optimizer.param_groups} == {(False, 0.25)}


def test_the_backbone_learns_at_its_share(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("finetune", backbone_rate=0.1, warmup_iterations=0, schedule="step")
    train(trainer, 1)
    rates: dict[str, set[float]] = {}
    rate_of = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    for name, parameter in trainer.student.named_parameters():
        rates.setdefault(name.split(".")[0], set()).add(rate_of[id(parameter)])
    assert rates == {"backbone": {1e-3 * 0.1}, "neck": {1e-3}, "head": {1e-3}}


def test_the_order_of_parameters_is_that_of_earlier_states(make_trainer: MakeTrainer) -> None:
    """Trunk before heads, what does not decay before kernels; within that, as in the detector."""
    trainer = make_trainer("finetune")
    names = {id(parameter): name for name, parameter in trainer.student.named_parameters()}
    found = [names[id(p)] for group in trainer.optimizer.param_groups for p in group["params"]]
    ranks = {name: (name.startswith("head."), p.ndim > 1) for name, p in trainer.student.named_parameters()}
    assert found == sorted(names.values(), key=lambda name: ranks[name])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_only_kernels_decay(optimizer: str, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("finetune", optimizer=optimizer, weight_decay=0.25)
    groups = trainer.optimizer.param_groups
    for group in groups:
        kernels = group["weight_decay"] == 0.25
        assert kernels or group["weight_decay"] == 0.0
        assert {parameter.ndim for parameter in group["params"]} == {4 if kernels else 1}
    assert sum(len(group["params"]) for group in groups) == len(list(trainer.student.parameters()))


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_the_trunk_learns_at_the_methods_rate(rate: float, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("crs-ckd", weight_decay=0.0, warmup_iterations=0, schedule="step")
    trainer.method.trunk_rate = lambda knowledge, objects: rate  # type: ignore[method-assign]
    before = {name: parameter.detach().clone() for name, parameter in trainer.student.named_parameters()}
    train(trainer, 1)
    rates = {group["in_head"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == pytest.approx({True: 1e-3, False: rate * 1e-3})
    for name, parameter in trainer.student.named_parameters():
        if not name.startswith("head."):
            assert torch.equal(parameter, before[name]) == (rate == 0.0), name
    assert not torch.equal(trainer.student.head.levels[0].cls_conv.weight, before["head.levels.0.cls_conv.weight"])


def test_frozen_layers_stay_out_of_the_optimizer(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("finetune")
    trainer.student.backbone.requires_grad_(False)
    again = Trainer(
        student=trainer.student,
        teacher=None,
        method=trainer.method,
        load_epoch=trainer.load_epoch,
        config=trainer.config,
        device=trainer.device,
    )
    held = {id(parameter) for group in again.optimizer.param_groups for parameter in group["params"]}
    assert held.isdisjoint(map(id, trainer.student.backbone.parameters()))
    before = {name: parameter.detach().clone() for name, parameter in trainer.student.backbone.named_parameters()}
    train(again, 1)
    assert all(torch.equal(parameter, before[name]) for name, parameter in trainer.student.backbone.named_parameters())


def test_what_is_kept_is_the_average_or_the_student(make_trainer: MakeTrainer) -> None:
    averaged, plain = make_trainer("finetune", ema_decay=0.9), make_trainer("finetune", ema_decay=0.0)
    kept, own = train(averaged, 1), train(plain, 1)
    assert_same(own, plain.student.state_dict())
    assert not torch.equal(kept["neck.lateral5.0.weight"], averaged.student.state_dict()["neck.lateral5.0.weight"])
    assert_same(averaged.student.state_dict(), plain.student.state_dict())
    assert "average" in averaged.state().parts and "average" not in plain.state().parts


@pytest.mark.parametrize("log_interval", [1, 50])
def test_a_loss_that_is_no_number_stops_training(log_interval: int, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("finetune", log_interval=log_interval)
    with torch.no_grad():
        levels_of(trainer.student)[0].obj_conv.weight.fill_(float("nan"))
    with pytest.raises(CiodError, match=r"the loss is nan at iteration \d+; lower `training\.lr`") as caught:
        train(trainer, 1)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_end_training(make_trainer: MakeTrainer) -> None:
    """Losses of training do not see them: running statistics, and an average of weights."""
    trainer = make_trainer("finetune")
    trainer.student.state_dict()["neck.lateral5.1.running_var"].fill_(float("nan"))
    with pytest.raises(CiodError, match=r"1 tensors .* after iteration 3, the first is neck\.lateral5\.1\.running_var"):
        train(trainer, 1)
    averaged = make_trainer("finetune", ema_decay=0.9)
    assert averaged.average is not None
    averaged.average.state["neck.lateral5.0.weight"].fill_(float("inf"))
    with pytest.raises(CiodError, match=r"the first is neck\.lateral5\.0\.weight; lower `training\.lr`"):
        train(averaged, 1)


def test_a_loss_beyond_all_bounds_stops_training(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("finetune", log_interval=1)
    with torch.no_grad():
        levels_of(trainer.student)[0].state_dict()["obj_conv.bias"].fill_(3e38)
    with pytest.raises(CiodError, match="the loss is inf"):
        train(trainer, 1)


def test_bf16_computes_in_bf16_and_keeps_weights_and_losses_in_float32(make_trainer: MakeTrainer) -> None:
    half, full = RecordKeeper(), RecordKeeper()
    trainer = make_trainer("finetune", precision="bf16", listener=half, log_interval=1)
    seen: list[torch.dtype] = []
    trainer.student.neck.register_forward_hook(lambda module, args, output: seen.append(output[0].dtype))
    train(trainer, 1)
    train(make_trainer("finetune", listener=full, log_interval=1), 1)
    assert set(seen) == {torch.bfloat16}
    assert {tensor.dtype for tensor in trainer.weights.values()} == {torch.float32, torch.int64}
    for half_record, full_record in zip(half.records, full.records, strict=True):
        assert half_record.losses["loss"] == pytest.approx(full_record.losses["loss"], rel=0.15)
    assert half.records[0].losses["loss"] != full.records[0].losses["loss"]


def test_batch_statistics_move_while_training(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("finetune")
    trainer.student.eval()
    norm = next(module for module in trainer.student.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.running_mean is not None
    before = norm.running_mean.clone()
    train(trainer, 1)
    assert not torch.equal(norm.running_mean, before)


def test_a_student_that_keeps_its_statistics_still_learns_scale_and_shift(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("finetune")
    trainer.student.keep_statistics()
    before = {name: tensor.clone() for name, tensor in trainer.student.state_dict().items()}
    train(trainer, 1)
    norms = [(name, part) for name, part in trainer.student.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms and not any(part.training for _, part in norms)
    for name, norm in norms:
        for kept in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(getattr(norm, kept), before[f"{name}.{kept}"])
        assert not torch.equal(norm.bias, before[f"{name}.bias"])
