"""When training ends and when it is evaluated."""

from __future__ import annotations

import pytest

from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import TrainingConfig
from ciod_core.errors import ConfigError
from ciod_core.training.ending import Best, early_end, evaluation_is_due, what_ends


def best_of(epoch: int) -> Best:
    return Best(epoch=epoch, ap=0.5, weights_sha256="")


@pytest.mark.parametrize(
    ("done", "best", "expected"),
    [
        (2, 2, None),
        (4, 2, None),
        (5, 2, None),
        (6, 2, "patience"),
        (8, 6, None),
        (10, 6, "patience"),
        (12, 6, "epochs"),
        (3, None, None),
        (4, None, "patience"),
    ],
)
def test_patience_counts_evaluations_without_a_better_ap(done: int, best: int | None, expected: str | None) -> None:
    config = TrainingConfig(epochs=12, evaluate_every=2, patience=2)
    assert what_ends(config, done, 0.0, best_of(best) if best else None) == expected
    assert what_ends(TrainingConfig(epochs=12, evaluate_every=2), done, 0.0, None) in ("epochs", None)


@pytest.mark.parametrize(("seconds", "expected"), [(3599.0, None), (3600.0, None), (3601.0, "max_hours")])
def test_the_time_limit_is_in_hours(seconds: float, expected: str | None) -> None:
    assert what_ends(TrainingConfig(epochs=3, max_hours=1), 2, seconds, None) == expected
    assert what_ends(TrainingConfig(epochs=3, max_hours=1), 3, seconds, None) == "epochs"
    assert what_ends(TrainingConfig(epochs=3), 2, seconds, None) is None


def test_the_last_epoch_is_evaluated_too() -> None:
    config = TrainingConfig(evaluate_every=3)
    assert [done for done in range(1, 9) if evaluation_is_due(config, done, ends=done == 8)] == [3, 6, 8]
    assert not evaluation_is_due(TrainingConfig(), 8, ends=True)


def test_an_early_end_is_a_sentence() -> None:
    config = TrainingConfig(epochs=24, evaluate_every=1, patience=1, max_hours=1.5)
    assert early_end(config, 24, "epochs") is None
    assert early_end(config, 7, "patience") == (
        "Training ends after 7 of 24 epochs: the AP did not rise in the last evaluation (`training.patience`)"
    )
    assert "the time of 1.5 h is over" in str(early_end(config, 7, "max_hours"))


@pytest.mark.parametrize("setting", ["training.patience=3", "training.keep=best"])
def test_what_reads_evaluations_needs_some(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"nothing is evaluated during training; set `training\.evaluate_every`"):
        resolve_config(assignments=[setting])
    resolve_config(assignments=[setting, "training.evaluate_every=1"])
