"""NMS of a batch with many classes, beside torchvision's `batched_nms` on the same candidates.

    python -m tests.benchmarks.nms

Candidates per batch stay the same while classes grow, so the time must not. Printed: seconds of one thread, best of
three in turn, and whether both keep the same boxes. Then the same for the suppression inside a pt2 file, captured for
any batch, beside one call for the whole batch: the time must grow with the batch, not with its square.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.export import Dim
from torchvision.ops import batched_nms

from ciod_core.export.graph import Suppression, quiet, suppress, suppress_in_turn
from ciod_core.model.common.nms import grouped_nms

CANDIDATES = 65_000
IMAGES = 32
ROUNDS = 3
# Of the captured suppression: every anchor point and class of an image is a candidate.
ANCHORS, CLASSES = 1_000, 6


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
    print(f"inside a pt2 file, {ANCHORS * CLASSES:,} candidates for each image")
    in_turn, in_one = captured(suppress_in_turn), captured(suppress)
    for images in (1, 4, 16):
        boxes_BA4, scores_BCA = answers(images)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            own, seconds = timed(lambda b=boxes_BA4, s=scores_BCA: in_turn(b, s))
            times[0].append(seconds)
            other, seconds = timed(lambda b=boxes_BA4, s=scores_BCA: in_one(b, s))
            times[1].append(seconds)
        same = set(map(tuple, own.tolist())) == set(map(tuple, other.tolist()))
        own_time, other_time = min(times[0]), min(times[1])
        print(
            f"{images:5d} images: in turn {own_time:.3f} s, in one call {other_time:.3f} s, "
            f"x{own_time / other_time:.2f}; same {len(own):,} survivors: {same}"
        )


def captured(suppression: Suppression) -> Callable[[Tensor, Tensor], Tensor]:
    """A suppression as a pt2 file has it, for any number of images."""

    class Graph(nn.Module):
        def forward(self, boxes_BA4: Tensor, scores_BCA: Tensor) -> Tensor:
            return suppression(boxes_BA4, scores_BCA, 0.0, 0.65, 100)

    batch = {0: Dim("batch")}
    with quiet():
        return torch.export.export(Graph(), answers(2), dynamic_shapes=(batch, batch)).module()


def answers(images: int) -> tuple[Tensor, Tensor]:
    """(B, A, 4) boxes and (B, C, A) scores, all of them candidates."""
    generator = torch.Generator().manual_seed(0)
    boxes_BA4 = torch.rand(images, ANCHORS, 4, generator=generator) * 300
    boxes_BA4[..., 2:] = boxes_BA4[..., :2] + 20 + boxes_BA4[..., 2:] / 3
    return boxes_BA4, torch.rand(images, CLASSES, ANCHORS, generator=generator)


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
