"""When training ends and when it is evaluated, as functions of what a state holds: a resumed run decides alike."""

from __future__ import annotations

from ciod_core.config.schema import TrainingConfig
from ciod_core.experiment.entries import RunEnd
from ciod_core.records import Record


class Best(Record):
    """The evaluation during training with the highest AP of all classes, the first of equals.

    Attributes:
        epoch: after which it was, from 1.
        ap: as a fraction.
        weights_sha256: hash of the file with the weights that were evaluated.
    """

    epoch: int
    ap: float
    weights_sha256: str


def what_ends(config: TrainingConfig, epochs_done: int, seconds: float, best: Best | None) -> RunEnd | None:
    """What ends training after an epoch; None: it goes on."""
    if epochs_done >= config.epochs:
        return "epochs"
    if config.max_hours and seconds > 3600 * config.max_hours:
        return "max_hours"
    if config.patience:
        in_vain = (epochs_done - (best.epoch if best else 0)) // config.evaluate_every
        return "patience" if in_vain >= config.patience else None
    return None


def evaluation_is_due(config: TrainingConfig, epochs_done: int, *, ends: bool) -> bool:
    """Whether to evaluate after an epoch: every so many, and after the last one."""
    return config.evaluate_every > 0 and (ends or epochs_done % config.evaluate_every == 0)


def early_end(config: TrainingConfig, epochs_done: int, ended_by: RunEnd) -> str | None:
    """The sentence about an early end; None where all epochs were trained."""
    if ended_by == "epochs":
        return None
    evaluations = "the last evaluation" if config.patience == 1 else f"the last {config.patience} evaluations"
    reason = {
        "patience": f"the AP did not rise in {evaluations} (`training.patience`)",
        "max_hours": f"the time of {config.max_hours:g} h is over (`training.max_hours`)",
    }[ended_by]
    return f"Training ends after {epochs_done} of {config.epochs} epochs: {reason}"
