"""Published results on COCO 2017, the recipe of each of them, and the comparison with a run of one's own.

The figures are those of the ILYOLOX paper and of ERD (arXiv 2204.02136), whose table has LwF, RILOD and SID on GFL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ciod_core.config.catalog import preset_file
from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config, config_sections
from ciod_core.data.formats.source import DatasetSource
from ciod_core.errors import ConfigError, did_you_mean
from ciod_core.evaluation.incremental import relative_gap
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import MANIFEST_NAME, Experiment
from ciod_core.methods.registry import reads
from ciod_core.model.checkpoint import CheckpointInfo, save_detector
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.model.registry import build_detector
from ciod_core.records import Record
from ciod_core.runs.compare.plan import BASE, JOINT, Epochs, SuiteRun, config_of, suite_runs
from ciod_core.runs.compare.results import SuiteRow
from ciod_core.runs.estimate import Estimate, estimate_run
from ciod_core.runs.spec import plan_run
from ciod_core.runs.train import training_table

# Images of COCO's train2017 that show an object.
LABELED_IMAGES = 117_266
# AP of all classes at the end, and Ω, by plan.
_PLANS = ("40+40", "50+30", "60+20", "70+10", "last40+first40")
_ON_GFL = {
    "lwf": ((0.172, 0.714), (0.050, 0.562), (0.058, 0.572), (0.071, 0.588), (0.205, 0.755)),
    "rilod": ((0.299, 0.872), (0.285, 0.854), (0.254, 0.816), (0.245, 0.805), (0.341, 0.924)),
    "sid": ((0.340, 0.923), (0.338, 0.920), (0.327, 0.907), (0.328, 0.908), (0.335, 0.917)),
    "erd": ((0.369, 0.959), (0.366, 0.955), (0.358, 0.945), (0.349, 0.934), (0.375, 0.966)),
}
_ILYOLOX = ((0.3110, 0.963), (0.3183, 0.974), (0.3073, 0.957), (0.3047, 0.953), (0.3175, 0.972))
_ILYOLOX_20X4 = {1: 0.276, 2: 0.294, 3: 0.279, 4: 0.268}
_BOUND_OF_GFL, _BOUND_OF_ILYOLOX = 0.402, 0.3361
# What a machine decides, and how often a run reports: no part of a recipe.
_FREE = {("training", "device"), ("training", "seed"), ("training", "log_interval"), ("data", "workers")}


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table. APs and Ω are fractions.

    Attributes:
        name: `ilyolox-70+10`.
        method: as `method.name`.
        preset: the recipe, as a preset's name; the method's name comes on top.
        plan: classes per step.
        order: of the classes.
        ap: AP of all classes so far by step, as far as it was published.
        omega: Ω at the end; None: not published.
        upper_bound: AP of joint training on all classes.
    """

    name: str
    method: str
    preset: str
    plan: str
    order: str
    ap: dict[int, float]
    omega: float | None
    upper_bound: float

    @property
    def last_step(self) -> int:
        """The step after which the chain ends."""
        return max(self.ap)

    @property
    def relative_gap(self) -> float | None:
        """Distance of the last AP to the upper bound, as a share of it."""
        return relative_gap(self.ap[self.last_step], self.upper_bound)

    def recipe(self) -> Config:
        """The settings that it was trained with."""
        return resolve_config(preset_file(self.preset), {"method.name": self.method})

    def to_document(self) -> dict[str, Any]:
        """The row as plain values ready for JSON."""
        return asdict(self)

    def runs(self, seeds: Sequence[int], *, upper_bounds: bool) -> tuple[SuiteRun, ...]:
        """Its trainings, every one after its teacher."""
        return suite_runs(self.last_step, [self.method], seeds, upper_bounds=upper_bounds)


def published_rows() -> dict[str, PublishedRow]:
    """All rows by name."""
    rows = [
        PublishedRow(f"{method}-{plan}", method, "published-erd", plan, "id", {2: ap}, omega, _BOUND_OF_GFL)
        for method, results in _ON_GFL.items()
        for plan, (ap, omega) in zip(_PLANS, results, strict=True)
    ]
    ilyolox: dict[str, tuple[dict[int, float], float | None]] = {
        plan: ({2: ap}, omega) for plan, (ap, omega) in zip(_PLANS, _ILYOLOX, strict=True)
    }
    ilyolox["20x4"] = _ILYOLOX_20X4, None
    rows += [
        PublishedRow(f"ilyolox-{plan}", "crs-ckd", "published", plan, "name", ap, omega, _BOUND_OF_ILYOLOX)
        for plan, (ap, omega) in ilyolox.items()
    ]
    return {row.name: row for row in rows}


def find_row(name: str) -> PublishedRow:
    """The row of a name.

    Raises:
        ConfigError: there is none.
    """
    rows = published_rows()
    if name not in rows:
        raise ConfigError(f"`row` {name}: no such row; {did_you_mean(name, rows, otherwise='list them with `list`')}")
    return rows[name]


def changed_settings(row: PublishedRow, config: Config) -> dict[str, tuple[object, object]]:
    """Settings that are not those of the row's recipe: key → the recipe's value and the one given."""
    recipe = row.recipe()
    return {
        f"{section}.{name}": (before, now)
        for section, kind in config_sections().items()
        for name in kind.model_fields
        if (section, name) not in _FREE and reads(row.method, section, name)
        for before, now in [(getattr(getattr(recipe, section), name), getattr(getattr(config, section), name))]
        if before != now
    }


def split_for(row: PublishedRow, source: DatasetSource, out: Path) -> Experiment:
    """The experiment of a row; split where it is not there yet.

    Raises:
        ConfigError: `out` holds another experiment, or the dataset has another number of classes.
        DataError: annotations that cannot be used.
    """
    if not (out / MANIFEST_NAME).exists():
        return create_experiment(source, row.plan, row.order, out)
    experiment = Experiment.open(out)
    manifest = experiment.read()
    plan, data = manifest.plan, manifest.dataset
    file = data and (data.train.converted_from or data.train.annotations.path)
    is_same = plan is not None and (plan.text, plan.order) == (row.plan, row.order) and file is not None
    if not is_same or (out / str(file)).resolve() != source.train.annotations.resolve():
        raise ConfigError(f"`out` {out}: its experiment has another plan or dataset; pass another folder")
    return experiment


def estimate_row(experiment: Experiment, runs: Sequence[SuiteRun], config: Config) -> Iterator[Estimate]:
    """What each run of a row would take; teachers, which are not trained yet, are detectors as they begin."""
    epochs = config.training.epochs
    for run in runs:
        settings = config_of(run, config, Epochs(epochs, epochs, epochs))
        with TemporaryDirectory() as folder:
            teacher = None if run.teacher is None else _untrained(experiment, run.step - 1, config, Path(folder))
            step = run.step if run.method == JOINT else None
            yield estimate_run(experiment, settings, teacher=teacher, step=step, run=run.name)


def _untrained(experiment: Experiment, step: int, config: Config, folder: Path) -> Path:
    classes = experiment.read().classes.up_to(step)
    info = CheckpointInfo(
        model=config.model,
        classes=classes,
        preprocessing=Preprocessing(**config.data.sizes),
        run="untrained",
        step=step,
        method=BASE,
        parent_sha256=None,
    )
    path = folder / "untrained.safetensors"
    save_detector(path, build_detector(config.model, len(classes)).state_dict(), info)
    return path


def _labeled_images(experiment: Experiment, step: int) -> int:
    """Training images with an object of the steps up to this one."""
    joint = resolve_config(flags={"method.name": JOINT})
    return training_table(experiment, plan_run(experiment, joint, step=step)).table.num_images


def doubts(row: PublishedRow, experiment: Experiment, config: Config) -> list[str]:
    """Why what was measured is not what was published, in sentences."""
    found = [f"not the recipe: {key} is {now}, not {was}" for key, (was, now) in changed_settings(row, config).items()]
    images = _labeled_images(experiment, row.last_step)
    if images != LABELED_IMAGES:
        found.append(f"not COCO 2017: {images:,} training images show an object, there it is {LABELED_IMAGES:,}")
    return found


class Figure(Record):
    """A published figure beside the measured one, as fractions.

    Attributes:
        name: in words.
        published: None where it was not.
        measured: mean over the seeds; None where a run that it needs is missing.
        sd: sample standard deviation over the seeds; None for one seed.
    """

    name: str
    published: float | None
    measured: float | None
    sd: float | None

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        return None if self.published is None or self.measured is None else self.measured - self.published


def compare_with(row: PublishedRow, measured: Sequence[SuiteRow]) -> tuple[Figure, ...]:
    """Every figure of a row beside what its runs reached.

    Args:
        row: what was published.
        measured: the rows of the runs.
    """
    found = {(suite_row.method, suite_row.step): suite_row.measures for suite_row in measured}

    def figure(name: str, published: float | None, method: str, measure: str, step: int = row.last_step) -> Figure:
        spread = found.get((method, step), {}).get(measure)
        mean, sd = (None, None) if spread is None else (spread.mean, spread.sd)
        return Figure(name=name, published=published, measured=mean, sd=sd)

    by_step = [
        figure(f"AP after step {step}", ap, row.method if step > 1 else BASE, "ap_all", step)
        for step, ap in row.ap.items()
    ]
    return (
        *by_step,
        figure("AP of the upper bound", row.upper_bound, JOINT, "ap_all"),
        figure("RelGap", row.relative_gap, row.method, "relative_gap"),
        figure("Ω", row.omega, row.method, "omega"),
    )
