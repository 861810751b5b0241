"""Whom a run learns from: a bank that it is given, one that it finds, or its teacher; and that it stays so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.experiment.folder import Experiment
from ciod_core.files import sha256_of_file
from ciod_core.runs.compare.plan import SuiteRun
from ciod_core.runs.compare.runner import train_missing
from ciod_core.runs.spec import plan_run, settle
from ciod_core.runs.train import train_step, training_table
from ciod_core.teachers.bank import KnowledgeBank, write_bank
from ciod_core.teachers.base import TeacherIdentity
from ciod_core.teachers.distill import distill
from ciod_core.teachers.resolve import AUTO, NONE, RunTeacher, resolve_teacher
from ciod_core.teachers.sources import TeacherOptions
from ciod_core.training.progress import TrainingListener, TrainingRecord
from tests.teachers.conftest import widths_of_answers
from tests.teachers.test_bank_training import TINY

ZERO = {"distiller.background": "zero"}
PSEUDO = {"method.name": "pseudo-label"}


def config(**settings: object) -> Config:
    return resolve_config(flags=TINY | settings)


def choose(
    experiment: Experiment, settings: Config, asked: Path | str | None = AUTO, teacher: str | None = "step1"
) -> RunTeacher:
    plan = plan_run(experiment, settings, teacher=teacher, run="other")
    images = training_table(experiment, plan)
    return resolve_teacher(
        experiment, settle(plan).config, images, step=plan.step, weights=plan.teacher, knowledge=asked
    )


def rewrite(bank: KnowledgeBank, **changes: Any) -> None:
    """The same answers under another description."""
    info = TeacherIdentity.model_validate(bank.identity.model_dump() | changes)
    write_bank(bank.path, info, dict(bank.items()))


class Following(TrainingListener):
    """Keeps what is said at the beginning, and interrupts a run in an epoch."""

    def __init__(self, stop_in: int = 0) -> None:
        self.notes: list[str] = []
        self._stop_in = stop_in

    def begin(self, run: str, epochs: int, iterations: int, notes: Sequence[str]) -> None:
        self.notes = list(notes)

    def record(self, record: TrainingRecord) -> None:
        if record.epoch == self._stop_in:
            raise KeyboardInterrupt


@pytest.mark.parametrize("settings", [PSEUDO, ZERO], ids=["pseudo-label", "crs-ckd without background"])
def test_a_bank_that_says_what_the_teacher_would_is_picked_up(
    settings: dict[str, object], experiment: Experiment
) -> None:
    bank = distill(experiment, config(**settings), TeacherOptions("step1")).teacher.bank
    chosen = choose(experiment, config(**settings))
    assert chosen.bank is not None and chosen.bank.bank.path == bank.path
    assert chosen.config.method == config(**settings).method
    assert chosen.notes == ("learns from step2.knowledge.safetensors instead of the live teacher",)


def test_a_method_is_not_changed_without_a_word(experiment: Experiment) -> None:
    background = {"distiller.background": "teacher"}
    bank = distill(experiment, config(**background), TeacherOptions("step1")).teacher.bank
    chosen = choose(experiment, config(**background))
    assert chosen.bank is None and chosen.config.distiller.background == "teacher"
    (note,) = chosen.notes
    assert note.startswith(f"not used: {bank.path}: it lacks the dense predictions that these settings need")
    assert "pass it as `knowledge`" in note
    given = choose(experiment, config(**background), bank.path)
    assert given.bank is not None and given.config.distiller.background == "zero"
    assert given.notes == (
        "learns from step2.knowledge.safetensors instead of the live teacher; distiller.background is zero",
    )


@pytest.mark.parametrize("asked", [NONE, None])
def test_who_does_not_want_a_bank_gets_none(asked: str | None, experiment: Experiment) -> None:
    distill(experiment, config(**ZERO), TeacherOptions("step1"))
    assert choose(experiment, config(**ZERO), asked).bank is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"resampler.fixed_score": 0.1}, "its resampler.fixed_score is 2e-05, not 0.1"),
        ({"resampler.rule": "crs"}, "its resampler.rule is fixed, not crs"),
        ({"data.image_size": 96}, "its image_size is 64, not 96"),
        (PSEUDO | {"resampler.fixed_score": 0.1}, "its resampler.fixed_score"),
    ],
)
def test_near_misses_are_worth_a_word(settings: dict[str, object], expected: str, experiment: Experiment) -> None:
    bank = distill(experiment, config(**ZERO), TeacherOptions("step1")).teacher.bank
    chosen = choose(experiment, config(**(ZERO | settings)))
    assert chosen.bank is None
    (note,) = chosen.notes
    assert note.startswith(f"not used: {bank.path}: {expected}")


@pytest.mark.parametrize(
    ("changes", "expected"), [({"flip": True}, "its flip is True, not False"), ({"scales": (1.5,)}, "its scales")]
)
def test_averaged_answers_are_not_the_teachers(
    changes: dict[str, object], expected: str, experiment: Experiment
) -> None:
    bank = distill(experiment, config(**ZERO), TeacherOptions("step1")).teacher.bank
    rewrite(bank, **changes)
    chosen = choose(experiment, config(**ZERO))
    assert chosen.bank is None and expected in chosen.notes[0]
    assert choose(experiment, config(**ZERO), bank.path).bank is not None, "who asks for it gets it"


def test_a_bank_that_lacks_an_image(experiment: Experiment) -> None:
    bank = distill(experiment, config(**ZERO), TeacherOptions("step1")).teacher.bank
    answers = dict(bank.items())
    write_bank(bank.path, bank.identity, dict(list(answers.items())[1:]))
    chosen = choose(experiment, config(**ZERO))
    assert chosen.bank is None
    assert f"1 of {len(answers)} images are not in it; run 'ciod distill' again" in chosen.notes[0]


def test_a_damaged_bank_stops_only_who_asks_for_it(experiment: Experiment) -> None:
    bank = distill(experiment, config(**ZERO), TeacherOptions("step1")).teacher.bank
    bank.path.write_bytes(bank.path.read_bytes()[:-9])
    chosen = choose(experiment, config(**ZERO))
    assert chosen.bank is None and "not a readable safetensors file" in chosen.notes[0]
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        choose(experiment, config(**ZERO), bank.path)


def test_what_is_none_of_a_runs_business_is_not_mentioned(experiment: Experiment) -> None:
    def is_silent(settings: dict[str, object], teacher: str | None = "step1") -> bool:
        chosen = choose(experiment, config(**settings), teacher=teacher)
        unchanged = teacher is None or chosen.config == settled(experiment, config(**settings))
        return chosen.bank is None and not chosen.notes and unchanged

    assert is_silent(ZERO)
    bank = distill(experiment, config(**ZERO), TeacherOptions("step1")).teacher.bank
    for method in ("lwf", "erd", "finetune"):
        assert is_silent({"method.name": method})
    assert is_silent(ZERO | {"replay.images": 3})
    assert is_silent(ZERO, teacher=None)
    rewrite(bank, teacher_sha256="ab" * 32)
    assert is_silent(ZERO)


def settled(experiment: Experiment, settings: Config) -> Config:
    return settle(plan_run(experiment, settings, teacher="step1", run="other")).config


def test_no_teacher_runs_and_the_record_says_so(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = distill(experiment, config(**PSEUDO), TeacherOptions("step1")).teacher.bank
    widths = widths_of_answers(monkeypatch)
    listener = Following()
    run = train_step(experiment, config(**PSEUDO), teacher="step1", run="other", knowledge=AUTO, listener=listener)
    assert widths == {8}, "a teacher of five classes answered"
    assert run.inputs["knowledge"].sha256 == sha256_of_file(bank.path)
    assert listener.notes[-1] == "learns from step2.knowledge.safetensors instead of the live teacher"


def test_a_comparison_does_not_look_for_banks(experiment: Experiment) -> None:
    distill(experiment, config(**PSEUDO), TeacherOptions("step1"))
    run = SuiteRun("compared", "pseudo-label", 0, 2, "step1")
    record = train_missing(experiment.folder, run, config(**PSEUDO), TrainingListener())
    assert record.status == "finished" and "knowledge" not in record.inputs


class TestResume:
    """Two epochs, interrupted in the second."""

    settings = PSEUDO | {"training.epochs": 2, "training.log_interval": 1}

    def begin(self, experiment: Experiment, knowledge: Path | str | None) -> None:
        with pytest.raises(KeyboardInterrupt):
            self.train(experiment, knowledge, resume=False, listener=Following(stop_in=2))
        assert experiment.read().run("other").status == "interrupted"

    def train(self, experiment: Experiment, knowledge: Path | str | None, **named: Any) -> Any:
        arguments: dict[str, Any] = {"teacher": "step1", "run": "other", "resume": True} | named
        return train_step(experiment, config(**self.settings), knowledge=knowledge, **arguments)

    @pytest.mark.parametrize("again", [AUTO, None, "the bank"])
    @pytest.mark.parametrize("at_first", [AUTO, "the bank"])
    def test_it_goes_on_with_its_bank(self, at_first: str, again: str | None, experiment: Experiment) -> None:
        bank = distill(experiment, config(**self.settings), TeacherOptions("step1")).teacher.bank
        self.begin(experiment, bank.path if at_first == "the bank" else at_first)
        run = self.train(experiment, bank.path if again == "the bank" else again)
        assert run.status == "finished"
        assert run.inputs["knowledge"].sha256 == sha256_of_file(bank.path)

    @pytest.mark.parametrize("again", [AUTO, NONE, None])
    def test_it_goes_on_with_its_teacher(self, again: str | None, experiment: Experiment) -> None:
        self.begin(experiment, AUTO)
        bank = distill(experiment, config(**self.settings), TeacherOptions("step1")).teacher.bank
        with pytest.raises(ConfigError, match="began with a live teacher; leave `knowledge` out"):
            self.train(experiment, bank.path)
        run = self.train(experiment, again)
        assert run.status == "finished" and "knowledge" not in run.inputs

    def test_a_bank_that_is_not_what_it_was(self, experiment: Experiment, tmp_path: Path) -> None:
        bank = distill(experiment, config(**self.settings), TeacherOptions("step1")).teacher.bank
        self.begin(experiment, AUTO)
        with pytest.raises(ConfigError, match=r"began with the bank step2\.knowledge\.safetensors; leave `knowledge`"):
            self.train(experiment, NONE)
        moved = tmp_path / "moved.safetensors"
        bank.path.rename(moved)
        with pytest.raises(
            CheckpointError, match="the file is missing; restore it, pass `knowledge` with its new path"
        ):
            self.train(experiment, AUTO)
        other = distill(experiment, config(**self.settings), TeacherOptions("step1", flip=True)).teacher.bank
        with pytest.raises(CheckpointError, match="changed since run 'other' began with it"):
            self.train(experiment, AUTO)
        with pytest.raises(ConfigError, match=r"began with the bank step2\.knowledge\.safetensors; pass it as it was"):
            self.train(experiment, other.path)
        assert self.train(experiment, moved).status == "finished"


def test_runs_are_not_called_like_banks(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match=r"`name` step2\.knowledge: '\.knowledge' marks what 'ciod distill' writes"):
        train_step(experiment, config(), teacher="step1", run="step2.knowledge")
