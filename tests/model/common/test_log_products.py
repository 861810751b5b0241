"""Sums of logarithms by products, against the sums themselves."""

from __future__ import annotations

import pytest
import torch

from ciod_core.model.common.log_products import logs_of_products_


@pytest.mark.parametrize("num_classes", [1, 2, 3, 4, 5, 7, 8, 63, 80, 1000])
@pytest.mark.parametrize("halvings", [0, 1, 2, 6])
def test_the_sum_of_all_logarithms_by_few_of_them(num_classes: int, halvings: int) -> None:
    entries = torch.rand(5, num_classes, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    logs = logs_of_products_(entries.clone(), halvings)
    torch.testing.assert_close(logs.sum(dim=1), entries.double().log().sum(dim=1).float())
    assert logs.shape[1] == max(1, -(-num_classes // 2**halvings))


def test_a_zero_affects_its_own_group_alone() -> None:
    entries = torch.full((2, 10), 0.5)
    entries[0, 3] = 0
    logs = logs_of_products_(entries, 2)
    assert logs[0].isinf().sum() == 1 and logs[1].isfinite().all()


def test_no_rows_and_no_classes() -> None:
    assert logs_of_products_(torch.zeros(0, 5), 2).shape == (0, 2)
    assert logs_of_products_(torch.zeros(3, 0), 2).shape == (3, 0)
