"""Learning rate as a plain function of the iteration, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

from ciod_core.config.schema import TrainingConfig

# A warm-up made for long runs must not swallow a short one: it takes a fifth of the iterations at most.
LEAST_RUN_IN_WARMUPS = 5


def peak_rate(config: TrainingConfig) -> float:
    """The rate after the warm-up: `training.lr`, scaled to the images of an update where it is meant for a number."""
    if not config.lr_batch_size:
        return config.lr
    return config.lr * config.batch_size * config.accumulate / config.lr_batch_size


def learning_rate(iteration: int, iterations_per_epoch: int, config: TrainingConfig) -> float:
    """The rate of an iteration (from 0): linear warm-up, then cosine decay or a tenth after each milestone."""
    peak = peak_rate(config)
    total = config.epochs * iterations_per_epoch
    warmup = min(config.warmup_iterations, total // LEAST_RUN_IN_WARMUPS)
    if iteration < warmup:
        progress = iteration / warmup
        return peak * (config.warmup_ratio + (1 - config.warmup_ratio) * progress)
    if config.schedule == "step":
        epoch = iteration // iterations_per_epoch
        return peak * 0.1 ** sum(epoch >= milestone for milestone in config.milestones)
    progress = (iteration - warmup) / max(total - warmup, 1)
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return peak * (config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine)
