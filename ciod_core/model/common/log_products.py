"""Sums of logarithms over many classes. Legend: P rows, C classes, G groups of classes."""

from __future__ import annotations

from torch import Tensor


def logs_of_products_(x_PC: Tensor, halvings: int) -> Tensor:
    """(P, G) logarithms of products of up to 2^halvings entries of a row; their sum is that of all logarithms.

    A logarithm costs several times as much as a multiplication: with many classes, taking few of them is most of the
    speed. The caller sees to it that no product leaves the range of floating point numbers. Overwrites its input.
    """
    for _ in range(halvings):
        num_left = x_PC.shape[1] - x_PC.shape[1] // 2
        x_PC[:, : x_PC.shape[1] - num_left].mul_(x_PC[:, num_left:])
        x_PC = x_PC[:, :num_left]
    return x_PC.log_()
