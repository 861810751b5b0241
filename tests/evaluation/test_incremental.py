"""The measures of incremental learning against published values and matrices worked out by hand."""

from __future__ import annotations

import pytest

from ciod_core.evaluation.incremental import (
    absolute_gap,
    backward_transfer,
    forgetting,
    forgetting_percentage_points,
    harmonic_ap,
    kept_ap,
    omega,
    relative_deficit,
    relative_gap,
)

GFL_BOUND = 40.2
ILYOLOX_BOUND = 33.61

PUBLISHED_OMEGA = [
    # (AP after step 2, upper bound, published Ω): 40+40, 50+30, 60+20, 70+10, last40+first40 of each method.
    *[(ap, GFL_BOUND, om) for ap, om in [(17.2, 0.714), (5.0, 0.562), (5.8, 0.572), (7.1, 0.588), (20.5, 0.755)]],
    *[(ap, GFL_BOUND, om) for ap, om in [(29.9, 0.872), (28.5, 0.854), (25.4, 0.816), (24.5, 0.805), (34.1, 0.924)]],
    *[(ap, GFL_BOUND, om) for ap, om in [(34.0, 0.923), (33.8, 0.920), (32.7, 0.907), (32.8, 0.908), (33.5, 0.917)]],
    *[(ap, GFL_BOUND, om) for ap, om in [(36.9, 0.959), (36.6, 0.955), (35.8, 0.945), (34.9, 0.934), (37.5, 0.966)]],
    *[
        (ap, ILYOLOX_BOUND, om)
        for ap, om in [(31.10, 0.963), (31.83, 0.974), (30.73, 0.957), (30.47, 0.953), (31.75, 0.972)]
    ],
]

# Three steps; step 1's classes fell from 60 to 40 and came back to 50.
MATRIX = [[60.0], [40.0, 30.0], [50.0, 20.0, 45.0]]


@pytest.mark.parametrize(("ap", "bound", "published"), PUBLISHED_OMEGA)
def test_omega_of_two_step_plans_is_as_published(ap: float, bound: float, published: float) -> None:
    value = omega([38.0, ap], [None, bound])
    assert value is not None
    assert value == pytest.approx(published, abs=0.00051)


def test_relative_gap_is_as_published() -> None:
    gap = relative_gap(30.47, ILYOLOX_BOUND)
    assert gap is not None
    assert round(100 * gap, 2) == 9.34
    assert absolute_gap(30.47, ILYOLOX_BOUND) == pytest.approx(3.14)


def test_omega_without_a_shared_base_divides_every_step() -> None:
    assert omega([20.0, 30.0], [40.0, 40.0], shared_first_step=False) == pytest.approx((0.5 + 0.75) / 2)
    assert omega([20.0, 30.0], [40.0, 40.0]) == pytest.approx((1 + 0.75) / 2)


def test_omega_needs_every_upper_bound_but_the_shared_one() -> None:
    assert omega([20.0, 30.0, 25.0], [None, None, 40.0]) is None
    assert omega([20.0, 30.0], [None, 0.0]) is None
    assert omega([20.0, 30.0], [None, 40.0], shared_first_step=False) is None
    assert omega([], []) is None


def test_forgetting_counts_from_the_best_earlier_value() -> None:
    assert forgetting(MATRIX) == (10.0, 10.0)
    assert forgetting([[40.0], [60.0, 10.0], [45.0, 30.0, 5.0]]) == (15.0, -20.0)
    assert forgetting([[60.0]]) == ()


def test_forgetting_percentage_points_compare_first_and_last_step() -> None:
    assert forgetting_percentage_points(MATRIX) == 10.0
    assert forgetting_percentage_points([[60.0]]) is None


def test_backward_transfer_compares_with_the_moment_of_learning() -> None:
    assert backward_transfer(MATRIX) == pytest.approx(((50 - 60) + (20 - 30)) / 2)
    assert backward_transfer([[60.0]]) is None


def test_missing_values_give_none_instead_of_a_wrong_mean() -> None:
    assert backward_transfer([[None], [40.0, 30.0], [50.0, 20.0, 45.0]]) is None
    assert forgetting([[None], [None, 30.0], [50.0, 20.0, 45.0]]) == (None, 10.0)
    assert absolute_gap(None, 1.0) is None
    assert relative_gap(0.5, 0.0) is None


def test_a_bound_below_the_result_gives_no_ratio() -> None:
    assert relative_gap(0.3, 0.1) is omega([0.3, 0.3], [None, 0.1]) is None
    assert relative_gap(0.3, 0.3) == 0.0 and omega([0.3, 0.3], [None, 0.3]) == 1.0
    assert absolute_gap(0.3, 0.1) == pytest.approx(-0.2)
    # A class that the joint detector hardly finds would outweigh all others.
    assert relative_deficit({"cat": 0.5, "dog": 0.3}, {"cat": 0.9, "dog": 0.0001}, ["cat", "dog"]) is None
    assert relative_deficit({"cat": 0.5, "dog": 0.8}, {"cat": 0.9, "dog": 0.7}, ["cat", "dog"]) == pytest.approx(
        (4 / 9 - 1 / 7) / 2
    )


def test_kept_ap_is_a_share_of_what_was_learned() -> None:
    assert kept_ap(MATRIX) == pytest.approx((50 / 60, 20 / 30))
    assert kept_ap([[0.0], [None, 30.0], [50.0, 20.0, 45.0]]) == (None, pytest.approx(20 / 30))
    assert kept_ap([[60.0]]) == ()


def test_relative_deficit_is_a_mean_over_classes() -> None:
    joint = {"cat": 0.5, "dog": 0.8, "owl": 0.0, "elk": None}
    final = {"cat": 0.25, "dog": 0.8, "owl": 0.1, "elk": 0.3}
    assert relative_deficit(final, joint, ["cat", "dog"]) == pytest.approx(0.25)
    assert relative_deficit(final, joint, ["cat", "owl", "elk"]) == pytest.approx(0.5)
    assert relative_deficit(final, joint, ["owl"]) is None
    assert relative_deficit(final, joint, []) is None


def test_harmonic_ap_is_zero_when_one_side_is_lost() -> None:
    assert harmonic_ap(30.0, 60.0) == pytest.approx(40.0)
    assert harmonic_ap(0.0, 60.0) == 0.0
    assert harmonic_ap(0.0, 0.0) == 0.0
    assert harmonic_ap(None, 60.0) is None
