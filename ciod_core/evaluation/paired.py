"""Two runs on the same images: differences of AP, and how far they may be chance of which images there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import hotcoco
import numpy as np

from ciod_core.classes import ClassTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.errors import ConfigError
from ciod_core.evaluation.average_precision import matching_input
from ciod_core.evaluation.backends import MatchingInput, hotcoco_evaluator
from ciod_core.evaluation.build_report import labeled_part
from ciod_core.evaluation.detections import Detections
from ciod_core.evaluation.evaluate import ground_truth_of
from ciod_core.evaluation.saved_detections import detect_run
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.records import Record

SAMPLES = 500
CONFIDENCE = 0.95


class Difference(Record):
    """AP of two runs on some classes, as fractions; None where no image shows them.

    Attributes:
        name: of the class, or `all`, `old` and `new`.
        step: that taught the class; None for groups.
        first, second: AP of both runs.
        difference: second − first.
        low, high: between them lie 95 % of the differences on images drawn with replacement; None without samples.
    """

    name: str
    step: int | None
    first: float | None
    second: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


class PairedComparison(Record):
    """Two runs compared.

    Attributes:
        first, second: names of the runs.
        images: that both were measured on.
        samples: draws of images behind the intervals.
        groups: the classes that both know: `all`, and from step 2 on `old` and `new` by the run of the earlier step.
        per_class: a difference per class.
    """

    first: str
    second: str
    images: int
    samples: int
    groups: tuple[Difference, ...]
    per_class: tuple[Difference, ...]


def compare_runs(
    experiment: Experiment,
    first: str,
    second: str,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    device: str = "auto",
    on_batch: Callable[[int], None] | None = None,
) -> PairedComparison:
    """Compare two runs on the classes that both know, on the validation images of the earlier step.

    Args:
        experiment: of both runs.
        first, second: their names.
        samples: draws of images for the intervals; 0: none.
        seed: of the draws.
        device: where detectors run whose detections are not saved yet.
        on_batch: receives the number of images that a detector has finished.

    Raises:
        ConfigError: no such run, twice the same, or no validation images.
        CheckpointError: weights that cannot be used.
        DataError: validation images that cannot be read.
    """
    manifest = experiment.read()
    if first == second:
        raise ConfigError(f"{first} is compared with itself; name two runs")
    runs = [manifest.run(name) for name in (first, second)]
    found = [detect_run(experiment, run, device=device, on_batch=on_batch) for run in runs]
    earlier = min(runs, key=lambda run: run.step)
    classes = manifest.classes.up_to(earlier.step)
    ground_truth = found[runs.index(earlier)].ground_truth
    own, other = (
        part.detections if run.step == earlier.step else _as_far_as(experiment, manifest, earlier, part.detections)
        for run, part in zip(runs, found, strict=True)
    )
    groups, per_class = paired_differences(ground_truth, own, other, classes, samples=samples, seed=seed)
    return PairedComparison(
        first=first,
        second=second,
        images=ground_truth.num_images,
        samples=samples,
        groups=groups,
        per_class=per_class,
    )


def _as_far_as(
    experiment: Experiment, manifest: ExperimentManifest, earlier: RunRecord, detections: Detections
) -> Detections:
    """The detections that count for a run of an earlier step: of its classes, on its images, where they are labeled."""
    classes = manifest.classes.up_to(earlier.step)
    table, _, labeled = ground_truth_of(experiment, manifest, earlier.step, classes)
    known_D = np.isin(detections.image_ids_D, table.image_ids_I)
    kept = detections.select(known_D & np.isin(detections.category_ids_D, classes.category_ids))
    return kept if labeled is None else labeled_part(table, kept, labeled)[1]


def paired_differences(
    ground_truth: AnnotationTable,
    first: Detections,
    second: Detections,
    classes: ClassTable,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    per_class: bool = True,
) -> tuple[tuple[Difference, ...], tuple[Difference, ...]]:
    """Differences by group, and by class if wanted, see `PairedComparison`; each interval draws the same images."""
    matched = [matching_input(ground_truth, detections) for detections in (first, second)]
    inputs, category_ids_K = [matching for matching, _ in matched], matched[0][1]

    def difference(name: str, step: int | None, category_ids: Sequence[int]) -> Difference:
        columns = np.searchsorted(category_ids_K, sorted(category_ids)).tolist()
        before, after = (_evaluated(matching, columns) for matching in inputs)
        found = hotcoco.compare(before, after, n_bootstrap=samples, seed=seed, confidence=CONFIDENCE)
        own, other = (None if found[key]["AP"] < 0 else found[key]["AP"] for key in ("metrics_a", "metrics_b"))
        if own is None or other is None:
            return Difference(name=name, step=step, first=own, second=other)
        interval = found["ci"]["AP"] if samples else {"lower": None, "upper": None}
        low, high = interval["lower"], interval["upper"]
        return Difference(name=name, step=step, first=own, second=other, difference=other - own, low=low, high=high)

    groups = tuple(difference(name, None, table.category_ids) for name, table in _groups(classes))
    entries = classes.entries if per_class else ()
    return groups, tuple(difference(entry.name, entry.step, [entry.category_id]) for entry in entries)


def _evaluated(matching: MatchingInput, columns: list[int]) -> hotcoco.COCOeval:
    evaluator = hotcoco_evaluator(matching)
    evaluator.params.cat_ids = columns
    evaluator.evaluate()
    return evaluator


def _groups(classes: ClassTable) -> Iterator[tuple[str, ClassTable]]:
    yield "all", classes
    if classes.last_step > 1:
        yield "old", classes.up_to(classes.last_step - 1)
        yield "new", classes.of_step(classes.last_step)
