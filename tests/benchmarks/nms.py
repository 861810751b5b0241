"""NMS of a batch with many classes, beside torchvision's `batched_nms` on the same candidates.

    python -m tests.benchmarks.nms

Candidates per batch stay the same while classes grow, so the time must not. Printed: seconds of one thread, best of
three in turn, and whether both keep the same boxes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ciod_core.model.common.nms import grouped_nms

CANDIDATES = 65_000
IMAGES = 32
ROUNDS = 3


def main() -> None:
    """Print a line per number of classes."""
    torch.set_num_threads(1)
    print(f"{CANDIDATES:,} candidates of {IMAGES} images, torch {torch.__version__}")
    for classes in (80, 86, 1203):
        boxes_N4, scores_N, group_N = candidates(classes)
        own_times, other_times = [], []
        for _ in range(ROUNDS):
            own, seconds = timed(lambda b=boxes_N4, s=scores_N, g=group_N: grouped_nms(b, s, g, 0.65))
            own_times.append(seconds)
            # In float64 like ciod's own, or a shift of many classes costs the digits of the IoU.
            other, seconds = timed(
                lambda b=boxes_N4, s=scores_N, g=group_N: batched_nms(b.double(), s.double(), g, 0.65)
            )
            other_times.append(seconds)
        same = set(own.tolist()) == set(other.tolist())
        print(
            f"{classes:5d} classes: ciod {min(own_times):.3f} s, torchvision {min(other_times):.3f} s, "
            f"x{min(own_times) / min(other_times):.2f}; same {len(own):,} survivors: {same}"
        )


def candidates(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes of random images and classes."""
    generator = torch.Generator().manual_seed(0)
    boxes_N4 = torch.rand(CANDIDATES, 4, generator=generator) * 300
    boxes_N4[:, 2:] = boxes_N4[:, :2] + 20 + boxes_N4[:, 2:] / 3
    group_N = torch.randint(0, IMAGES * classes, (CANDIDATES,), generator=generator)
    return boxes_N4, torch.rand(CANDIDATES, generator=generator), group_N


def timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """A result and the seconds it took."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
