"""Which runs a comparison needs: step 1 and the upper bounds once per seed, and every method's chain of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ciod_core.config.schema import Config, ModelConfig, ReplayConfig, Section, TrainingConfig
from ciod_core.errors import ConfigError, did_you_mean
from ciod_core.experiment.folder import run_name
from ciod_core.methods.registry import METHODS
from ciod_core.runs.inherited import spelled_out

BASE = "base"
JOINT = "joint"
REPLAY_SUFFIX = "+replay"


@dataclass(frozen=True)
class SuiteRun:
    """One training run of a comparison.

    Attributes:
        name: in the experiment.
        method: a method as it was listed, with `+replay` where it replays; `base` (step 1) or `joint` (an upper bound).
        seed: of the training.
        step: from 1.
        teacher: name of the run it continues; None for step 1 and upper bounds.
    """

    name: str
    method: str
    seed: int
    step: int
    teacher: str | None

    @property
    def replays(self) -> bool:
        """Whether the configured replay is added to the method."""
        return self.method.endswith(REPLAY_SUFFIX)


@dataclass(frozen=True)
class Epochs:
    """How long runs train.

    Attributes:
        first: step 1.
        later: every later step.
        joint: an upper bound; None: as long as all the steps it covers together, since a bound that was trained for
            less than the methods it bounds would be too low.
    """

    first: int
    later: int
    joint: int | None = None

    def of(self, run: SuiteRun) -> int:
        """Epochs of one run."""
        if run.method == JOINT:
            return self.joint or self.first + (run.step - 1) * self.later
        return self.first if run.method == BASE else self.later


def suite_runs(
    steps: int, methods: Sequence[str], seeds: Sequence[int], *, upper_bounds: bool = True
) -> tuple[SuiteRun, ...]:
    """All runs of a comparison; every run comes after its teacher.

    Args:
        steps: number of steps of the plan.
        methods: names of methods, with `+replay` behind those that replay; `joint` is no method here, because it bounds
            all of them.
        seeds: of the trainings. Runs of seed 0 have the usual names, others end in `-seed1`, `-seed2`, …
        upper_bounds: train the joint run of every step from 2 on.

    Raises:
        ConfigError: an unknown or repeated method.
    """
    _check_methods(methods)
    runs: list[SuiteRun] = []
    for seed in seeds:
        first = _named(run_name(1), seed)
        runs.append(SuiteRun(first, BASE, seed, 1, None))
        if upper_bounds:
            runs += [
                SuiteRun(_named(run_name(step, kind="joint"), seed), JOINT, seed, step, None)
                for step in range(2, steps + 1)
            ]
        for method in methods:
            teacher = first
            for step in range(2, steps + 1):
                name = _named(_name(step, method), seed)
                runs.append(SuiteRun(name, method, seed, step, teacher))
                teacher = name
    return tuple(runs)


def config_of(run: SuiteRun, config: Config, epochs: Epochs) -> Config:
    """The settings of one run: the common ones with its method, seed and length, and replay where the method says so.

    Runs with a teacher start from it, the others from `model.init`; no setting is left to the teacher's run. The
    milestones are those of `training.epochs`: in a longer or shorter run they come as much later or earlier.

    Raises:
        ConfigError: replay was asked for without a budget.
    """
    if run.replays and not config.replay.on:
        raise ConfigError(
            f"`methods` {run.method}: nothing is replayed without a budget; set `replay.images`, for example to 60"
        )
    config = spelled_out(config)
    training = _of_length(config.training, epochs.of(run)).model_copy(update={"seed": run.seed})
    name = run.method.removesuffix(REPLAY_SUFFIX)
    method = config.method if run.method == BASE else config.method.model_copy(update={"name": name})
    replay = config.replay if run.replays else ReplayConfig()
    update: dict[str, Section] = {"training": training, "method": method, "replay": replay}
    if run.teacher is not None:
        update["model"] = ModelConfig.model_validate(config.model.model_dump(exclude_unset=True, exclude={"init"}))
    return config.model_copy(update=update)


def _of_length(training: TrainingConfig, epochs: int) -> TrainingConfig:
    update: dict[str, Any] = {"epochs": epochs}
    if training.schedule == "step":
        stretch = epochs / training.epochs
        update["milestones"] = tuple(max(1, round(milestone * stretch)) for milestone in training.milestones)
    return training.model_copy(update=update)


def _name(step: int, method: str) -> str:
    return run_name(step, method.removesuffix(REPLAY_SUFFIX), replay=method.endswith(REPLAY_SUFFIX))


def _named(name: str, seed: int) -> str:
    return name if seed == 0 else f"{name}-seed{seed}"


def _check_methods(methods: Sequence[str]) -> None:
    known = [name for name in METHODS if name != JOINT]
    for position, method in enumerate(methods):
        if method.removesuffix(REPLAY_SUFFIX) not in known:
            hint = did_you_mean(method, known)
            if method == JOINT:
                hint = "leave it out, the upper bounds are trained anyway"
            raise ConfigError(f"`methods`: '{method}' cannot be compared; {hint}")
        if method in methods[:position]:
            raise ConfigError(f"`methods`: '{method}' is listed twice; list every method once")
