"""Measures of incremental learning: pure functions on average precisions.

An AP matrix `ap_KJ` holds in row k, column j the AP on the classes of step j+1 after step k+1 (both count from 0 in the
array). Entries above the diagonal are not read. The functions accept any kind of AP (AP, AP50, …) in any unit;
differences come out in that unit and ratios without one. None stands for a value that does not exist.

Ratios to an upper bound exist only where it is one: a bound below the AP that it should bound can come close to 0, and
the ratio to it can be of any size.

Legend: K steps trained, J steps evaluated, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ApMatrix = Sequence[Sequence[float | None]]

ROUNDING = 1e-9


@dataclass(frozen=True)
class IncrementalMeasures:
    """All measures of a chain for one metric, as the functions of their names define them; None: does not exist.

    Attributes:
        ap_KJ: AP on the classes of step j after step k, for j up to k.
        ap_T: AP on all classes seen after each step.
        upper_bound_T: AP of the joint run of each step; None for steps without one.
        kept: of each earlier step, as `kept_ap`.
        absolute_gap: at the last step, as `relative_gap`.
        ap_old: final AP on the classes of all earlier steps.
        ap_new: final AP on the classes of the last step.
    """

    ap_KJ: tuple[tuple[float | None, ...], ...]
    ap_T: tuple[float | None, ...]
    upper_bound_T: tuple[float | None, ...]
    absolute_gap: float | None
    relative_gap: float | None
    omega: float | None
    forgetting: tuple[float | None, ...]
    forgetting_percentage_points: float | None
    backward_transfer: float | None
    kept: tuple[float | None, ...]
    ap_old: float | None
    ap_new: float | None
    harmonic_ap: float | None


def summary(
    ap_KJ: ApMatrix,
    ap_T: Sequence[float | None],
    upper_bound_T: Sequence[float | None],
    *,
    ap_old: float | None,
    ap_new: float | None,
    shared_first_step: bool = True,
) -> IncrementalMeasures:
    """All measures of a chain; arguments as in `IncrementalMeasures`, `shared_first_step` as in `omega`."""
    return IncrementalMeasures(
        ap_KJ=tuple(tuple(row) for row in ap_KJ),
        ap_T=tuple(ap_T),
        upper_bound_T=tuple(upper_bound_T),
        absolute_gap=absolute_gap(ap_T[-1], upper_bound_T[-1]),
        relative_gap=relative_gap(ap_T[-1], upper_bound_T[-1]),
        omega=omega(ap_T, upper_bound_T, shared_first_step=shared_first_step),
        forgetting=forgetting(ap_KJ),
        forgetting_percentage_points=forgetting_percentage_points(ap_KJ),
        backward_transfer=backward_transfer(ap_KJ),
        kept=kept_ap(ap_KJ),
        ap_old=ap_old,
        ap_new=ap_new,
        harmonic_ap=harmonic_ap(ap_old, ap_new),
    )


def absolute_gap(ap: float | None, upper_bound: float | None) -> float | None:
    """AbsGap = U − AP: distance to the detector trained on all classes at once."""
    return None if ap is None or upper_bound is None else upper_bound - ap


def relative_gap(ap: float | None, upper_bound: float | None) -> float | None:
    """RelGap = (U − AP) / U; None when the upper bound is 0 or below the AP."""
    return _if_bounded(_signed_gap(ap, upper_bound))


def omega(
    ap_T: Sequence[float | None], upper_bound_T: Sequence[float | None], *, shared_first_step: bool = True
) -> float | None:
    """Ω = mean over the steps of AP_t / U_t, both on the classes seen after step t.

    Published tables count the first step as 1, because the incremental and the joint detector share it; for a plan
    of two steps Ω is then mean(1, AP_2 / U_2).

    Args:
        ap_T: AP after each step on all classes seen so far.
        upper_bound_T: AP of the joint detector on the same classes; the first is not read with `shared_first_step`.
        shared_first_step: take the ratio of step 1 as 1.

    Returns:
        None without steps, or when a step lacks its AP, or an upper bound above 0 that is not below it.
    """
    assert len(ap_T) == len(upper_bound_T), "one upper bound per step"
    ratios = [
        1.0 if step == 0 and shared_first_step else _share(ap, upper)
        for step, (ap, upper) in enumerate(zip(ap_T, upper_bound_T, strict=True))
    ]
    return _mean(ratios)


def forgetting(ap_KJ: ApMatrix) -> tuple[float | None, ...]:
    """Per earlier step j: the best AP its classes ever had minus their AP after the last step.

    Returns:
        One value per step but the last; negative when the last step improved on everything before it.
    """
    last = ap_KJ[-1]
    return tuple(_difference(_best([row[j] for row in ap_KJ[j:-1]]), last[j]) for j in range(len(ap_KJ) - 1))


def forgetting_percentage_points(ap_KJ: ApMatrix) -> float | None:
    """FPP: AP of the first step's classes after step 1 minus after the last step; None before step 2."""
    return _difference(ap_KJ[0][0], ap_KJ[-1][0]) if len(ap_KJ) > 1 else None


def backward_transfer(ap_KJ: ApMatrix) -> float | None:
    """BWT: mean over earlier steps j of (a_Tj − a_jj); negative where later steps harmed. None before step 2."""
    return _mean([_difference(ap_KJ[-1][j], ap_KJ[j][j]) for j in range(len(ap_KJ) - 1)])


def relative_deficit(
    ap_C: Mapping[str, float | None], joint_ap_C: Mapping[str, float | None], classes: Sequence[str]
) -> float | None:
    """Mean over classes of (AP_joint − AP) / AP_joint: RSD on the old classes, RPD on the new ones.

    Classes without an AP, or where the joint detector finds nothing, have no deficit and do not count. None where the
    mean is below 0: the joint detector is no upper bound of these classes.
    """
    gaps = [_signed_gap(ap_C.get(name), joint_ap_C.get(name)) for name in classes]
    return _if_bounded(_mean([gap for gap in gaps if gap is not None]))


def kept_ap(ap_KJ: ApMatrix) -> tuple[float | None, ...]:
    """Per earlier step j: a_Tj / a_jj, the share of its AP that is left after the last step; None where it was 0."""
    learned = [ap_KJ[j][j] for j in range(len(ap_KJ) - 1)]
    return tuple(
        now / before if now is not None and before else None for now, before in zip(ap_KJ[-1], learned, strict=False)
    )


def harmonic_ap(ap_old: float | None, ap_new: float | None) -> float | None:
    """F-AP = 2·AP_old·AP_new / (AP_old + AP_new); 0 when either is 0."""
    if ap_old is None or ap_new is None:
        return None
    total = ap_old + ap_new
    return 2 * ap_old * ap_new / total if total else 0.0


def _signed_gap(ap: float | None, upper_bound: float | None) -> float | None:
    return None if ap is None or not upper_bound else (upper_bound - ap) / upper_bound


def _if_bounded(gap: float | None) -> float | None:
    """A relative gap; None where it is negative, apart from errors of rounding."""
    return None if gap is None or gap < -ROUNDING else max(gap, 0.0)


def _share(ap: float | None, upper_bound: float | None) -> float | None:
    gap = relative_gap(ap, upper_bound)
    return None if gap is None else 1.0 - gap


def _difference(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def _best(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known, default=None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
