"""Learning rate as a plain function of the iteration, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

from ciod_core.config import TrainingConfig


def learning_rate(iteration: int, iterations_per_epoch: int, config: TrainingConfig) -> float:
    """The rate of an iteration (from 0): linear warm-up, then cosine decay or a tenth after each milestone."""
    if iteration < config.warmup_iterations:
        progress = iteration / config.warmup_iterations
        return config.lr * (config.warmup_ratio + (1 - config.warmup_ratio) * progress)
    if config.schedule == "step":
        epoch = iteration // iterations_per_epoch
        return config.lr * 0.1 ** sum(epoch >= milestone for milestone in config.milestones)
    span = max(config.epochs * iterations_per_epoch - config.warmup_iterations, 1)
    progress = (iteration - config.warmup_iterations) / span
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return config.lr * (config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine)
