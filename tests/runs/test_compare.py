"""Comparisons: which runs, what is trained again, what the table says."""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path

import pytest

from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config
from ciod_core.data.formats.source import DatasetSource
from ciod_core.errors import CiodError, ConfigError
from ciod_core.evaluation.average_precision import Metrics
from ciod_core.evaluation.chain import chain_to
from ciod_core.evaluation.report import ClassReport, EvaluationReport
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import STATE_FILE, Experiment
from ciod_core.runs.compare import runner
from ciod_core.runs.compare.plan import Epochs, SuiteRun, config_of, suite_runs
from ciod_core.runs.compare.results import Spread, _ceiling, suite_rows
from ciod_core.runs.compare.runner import RunProgress, run_suite
from ciod_core.runs.inherited import INHERITED
from ciod_core.runtime.interruption import Interruption
from ciod_core.training.progress import TrainingListener

TINY = {
    "model.name": "yolox-micro",
    "data.image_size": 64,
    "data.workers": 0,
    "training.batch_size": 8,
    "training.device": "cpu",
}
EPOCHS = Epochs(first=2, later=1)


class Recorder:
    """Notes what a comparison tells."""

    def __init__(self) -> None:
        self.missing = -1
        self.done: list[str] = []
        self.errors: dict[str, str] = {}
        self.seen: set[RunProgress] = set()

    def begin(self, total: int, missing: int) -> None:
        self.missing = missing

    def finished(self, run: SuiteRun, record: RunRecord) -> None:
        assert record.name == run.name
        self.done.append(run.name)

    def failed(self, run: SuiteRun, message: str) -> None:
        self.errors[run.name] = message

    def running(self, runs: Sequence[RunProgress]) -> None:
        self.seen.update(runs)

    def training(self) -> TrainingListener:
        return TrainingListener()


@pytest.fixture
def experiment(shapes_dataset: DatasetSource, tmp_path: Path) -> Experiment:
    return create_experiment(shapes_dataset, "4+2+2", "name", tmp_path / "experiment")


def test_runs_come_after_their_teachers_and_share_what_can_be_shared() -> None:
    runs = suite_runs(3, ["finetune", "crs-ckd"], [0, 1])
    assert [run.name for run in runs if run.seed == 0] == [
        "step1",
        "joint2",
        "joint3",
        "step2-finetune",
        "step3-finetune",
        "step2-crs-ckd",
        "step3-crs-ckd",
    ]
    assert [run.name for run in runs if run.seed == 1] == [f"{run.name}-seed1" for run in runs if run.seed == 0]
    known: set[str | None] = {None}
    for run in runs:
        assert run.teacher in known
        known.add(run.name)
    assert {run.teacher for run in runs if run.step == 2 and run.method != "joint"} == {"step1", "step1-seed1"}


def test_upper_bounds_train_as_long_as_the_steps_they_cover() -> None:
    runs = {run.name: run for run in suite_runs(3, ["finetune"], [0])}
    epochs = Epochs(first=20, later=7)
    lengths = {name: epochs.of(run) for name, run in runs.items()}
    assert lengths == {"step1": 20, "joint2": 27, "joint3": 34, "step2-finetune": 7, "step3-finetune": 7}


def test_milestones_move_with_the_length_of_a_run() -> None:
    first, joint, later = suite_runs(2, ["finetune"], [0])
    config = resolve_config(flags={"training.schedule": "step", "training.epochs": 12})
    epochs = Epochs(first=24, later=12, joint=6)
    runs = [config_of(run, config, epochs).training for run in (first, later, joint)]
    assert [(run.epochs, run.milestones) for run in runs] == [(24, (16, 22)), (12, (8, 11)), (6, (4, 6))]
    # A finished run does not become another one by a setting that its schedule does not read.
    cosine = config_of(joint, resolve_config(), epochs).training
    assert (cosine.epochs, cosine.milestones) == (6, (8, 11))


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (["finetun"], "did you mean 'finetune'"),
        (["joint+replay"], "cannot be compared"),
        (["finetune+replay"] * 2, "listed twice"),
        (["joint"], "leave it out"),
        (["finetune"] * 2, "listed twice"),
    ],
)
def test_methods_that_cannot_be_compared(methods: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        suite_runs(2, methods, [0])


def test_a_lost_process_fails_its_run_and_those_that_build_on_it(experiment: Experiment) -> None:
    class Losing:
        def submit(self, function: object, folder: Path, run: SuiteRun, config: Config) -> Future[RunRecord]:
            future: Future[RunRecord] = Future()
            if run.seed == 0:
                future.set_exception(CiodError("its process was killed"))
            else:
                future.set_exception(OSError(errno.EAGAIN, "Resource temporarily unavailable"))
            return future

    runs, config = suite_runs(3, ["finetune"], [0, 1], upper_bounds=False), resolve_config(flags=TINY)
    queue = [(run, config_of(run, config, EPOCHS)) for run in runs]
    place = nullcontext(Losing())
    outcomes = list(runner._side_by_side(experiment, queue, place, 2, Recorder()))  # type: ignore[arg-type]
    assert sorted((run.name, str(outcome)) for run, outcome in outcomes) == [
        ("step1", "its process was killed"),
        ("step1-seed1", "Resource temporarily unavailable"),
    ]


def test_an_interruption_that_broke_a_future_is_no_error_of_the_run() -> None:
    class Broken:
        def result(self) -> RunRecord:
            try:
                raise Interruption(signal.SIGTERM)
            finally:
                raise RuntimeError("cannot release un-acquired lock")

    with pytest.raises(RuntimeError):
        runner._result(Broken())  # type: ignore[arg-type]


def test_no_setting_is_left_to_a_teachers_run() -> None:
    config = resolve_config(flags={"training.lr": 0.5})
    for run in suite_runs(2, ["finetune"], [0]):
        found = config_of(run, config, EPOCHS)
        for key in INHERITED:
            section, name = key.split(".")
            assert name in getattr(found, section).model_fields_set
        assert (found.training.lr, found.training.batch_size) == (0.5, Config().training.batch_size)


def test_replay_is_added_to_the_methods_that_ask_for_it() -> None:
    config = resolve_config(flags=TINY | {"replay.images": 6, "replay.choice": "random"})
    runs = suite_runs(3, ["erd", "erd+replay", "crs-ckd+replay"], [1])
    found = {run.name.removesuffix("-seed1"): config_of(run, config, EPOCHS) for run in runs}
    replaying = {name for name, settings in found.items() if settings.replay.on}
    assert replaying == {"step2-erd-replay", "step3-erd-replay", "step2-crs-ckd-replay", "step3-crs-ckd-replay"}
    assert found.keys() - replaying == {"step1", "joint2", "joint3", "step2-erd", "step3-erd"}
    assert found["step2-erd-replay"].replay == config.replay
    assert found["step2-erd"].replay == Config().replay
    assert {found[name].method.name for name in ("step2-erd", "step2-erd-replay")} == {"erd"}
    assert found["step3-crs-ckd-replay"].method.name == "crs-ckd"
    assert [run.method for run in runs if run.step == 2] == ["joint", "erd", "erd+replay", "crs-ckd+replay"]


def test_replay_without_a_budget(experiment: Experiment) -> None:
    recorder = Recorder()
    with pytest.raises(ConfigError, match=r"^`methods` erd\+replay: nothing is replayed without a budget; [^\n]*$"):
        run_suite(experiment, suite_runs(3, ["erd+replay"], [0]), resolve_config(flags=TINY), EPOCHS, recorder)
    assert recorder.missing == -1 and experiment.read().runs == ()


@pytest.mark.slow
def test_rows_tell_replay_from_its_absence(experiment: Experiment) -> None:
    config = resolve_config(flags=TINY | {"replay.images_per_class": 1})
    runs = suite_runs(3, ["finetune", "finetune+replay"], [0], upper_bounds=False)
    run_suite(experiment, runs, config, Epochs(1, 1), Recorder())
    rows = [(row.method, row.step) for row in suite_rows(experiment, runs)]
    methods = [("finetune", 2), ("ceiling", 2), ("finetune", 3), ("ceiling", 3)]
    assert rows == [("base", 1), *methods, ("finetune+replay", 2), ("finetune+replay", 3)]
    assert experiment.read().run("step2-finetune").replayed == ()
    assert {step for image in experiment.read().run("step3-finetune-replay").replayed for step in image.steps} == {1, 2}
    again = Recorder()
    run_suite(experiment, runs, config, Epochs(1, 1), again)
    assert again.missing == 0
    with pytest.raises(ConfigError, match=r"'step2-finetune-replay' is finished with replay\.images = 0, now it is 9"):
        run_suite(experiment, runs, resolve_config(flags=TINY | {"replay.images": 9}), Epochs(1, 1), Recorder())


@pytest.mark.slow
def test_a_comparison_trains_what_is_missing_and_reports_what_the_runs_say(experiment: Experiment) -> None:
    config = resolve_config(flags=TINY)
    first = Recorder()
    runs = suite_runs(3, ["finetune"], [0, 1])
    run_suite(experiment, runs, config, EPOCHS, first)
    assert (first.missing, len(first.done)) == (10, 10)
    assert {run.seed for run in experiment.read().runs} == {0, 1}

    again = Recorder()
    more = suite_runs(3, ["finetune", "pseudo-label"], [0, 1])
    run_suite(experiment, more, config, EPOCHS, again, jobs=2)
    assert sorted(again.done) == [f"step{step}-pseudo-label{end}" for step in (2, 3) for end in ("", "-seed1")]
    assert {run.name for run in again.seen} == set(again.done) and not first.seen
    assert {(run.epoch, run.epochs) for run in again.seen} >= {(0, 1)}

    rows = {(row.method, row.step): row for row in suite_rows(experiment, more)}
    assert list(rows)[:3] == [("base", 1), ("joint", 2), ("joint", 3)]
    last = rows["pseudo-label", 3]
    assert last.seeds == (0, 1)
    for position, name in enumerate(("step3-pseudo-label", "step3-pseudo-label-seed1")):
        record = experiment.read().run(name)
        assert last.measures["ap_all"].values[position] == record.metrics["all"]
        assert last.measures["ap_old"].values[position] == record.metrics["old"]
        assert last.measures["seconds"].values[position] == record.seconds
    chain = chain_to(experiment, experiment.read().run("step3-pseudo-label"))
    assert chain is not None
    assert last.measures["omega"].values[0] == chain.by_metric["ap"].omega
    assert last.measures["rsd"].values[0] == chain.rsd
    assert rows["joint", 3].measures["omega"].mean is None

    with pytest.raises(ConfigError, match=r"run 'step1' is finished with training\.lr = 0\.001, now it is 0\.01"):
        run_suite(experiment, more, resolve_config(flags=TINY | {"training.lr": 0.01}), EPOCHS, Recorder())
    # None of these methods distils, step 1 and the bounds have no teacher, and fine-tuning asks it nothing.
    tuned = Recorder()
    distilling = resolve_config(flags=TINY | {"distiller.class_weight": 2.0, "resampler.rule": "fixed"})
    # As a run leaves it that is interrupted when all that is left to do is to remove it.
    state = experiment.run_folder("step3-finetune") / STATE_FILE
    state.parent.mkdir()
    state.touch()
    run_suite(experiment, runs, distilling, EPOCHS, tuned)
    assert tuned.missing == 0 and not state.parent.exists()
    with pytest.raises(ConfigError, match=r"'step2-pseudo-label' is finished with resampler\.rule = crs"):
        run_suite(experiment, more, distilling, EPOCHS, Recorder())
    # A run from before a setting existed was not trained by what is its default now.
    taught = experiment.read().run("step2-pseudo-label")
    before = taught.config | {"method": {"name": "crs-ckd"}}
    experiment.put_run(taught.model_copy(update={"name": "step2-crs-ckd", "method": "crs-ckd", "config": before}))
    with pytest.raises(
        ConfigError, match=r"'step2-crs-ckd' is finished with method\.batch_norm = update, now it is keep"
    ):
        run_suite(experiment, suite_runs(3, ["crs-ckd"], [0]), config, EPOCHS, Recorder())


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failed_run_takes_only_its_chain_along(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    runs = suite_runs(3, ["finetune", "pseudo-label"], [0], upper_bounds=False)
    # The folder of the run's files cannot be made where a file is in its way.
    (experiment.folder / "step2-finetune").write_text("")
    recorder = Recorder()
    with pytest.raises(CiodError, match=r"1 of 5 runs failed, first 'step2-finetune'"):
        run_suite(experiment, runs, resolve_config(flags=TINY), Epochs(1, 1), recorder, jobs=jobs)
    assert sorted(recorder.done) == ["step1", "step2-pseudo-label", "step3-pseudo-label"]
    assert list(recorder.errors) == ["step2-finetune"]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_stopped(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(TrainingListener):
        def record(self, record: object) -> None:
            if getattr(record, "epoch", 0) == 2:
                raise KeyboardInterrupt

    runs = suite_runs(3, [], [0], upper_bounds=False)
    config = resolve_config(flags=TINY | {"training.log_interval": 1})
    recorder = Recorder()
    monkeypatch.setattr(recorder, "training", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        run_suite(experiment, runs, config, Epochs(3, 1), recorder)
    assert experiment.read().run("step1").status == "interrupted"
    resumed: list[bool] = []
    train = runner.train_step

    def spy(*arguments: object, **named: object) -> RunRecord:
        resumed.append(bool(named["resume"]))
        return train(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "train_step", spy)
    run_suite(experiment, runs, config, Epochs(3, 1), Recorder())
    assert resumed == [True]
    assert experiment.read().run("step1").status == "finished"


def test_two_comparisons_do_not_share_an_experiment(experiment: Experiment) -> None:
    class Nested(Recorder):
        def begin(self, total: int, missing: int) -> None:
            run_suite(experiment, (), resolve_config(flags=TINY), EPOCHS, Recorder())

    with pytest.raises(ConfigError, match="another 'ciod run' is at work"):
        run_suite(experiment, (), resolve_config(flags=TINY), EPOCHS, Nested())


def test_spread() -> None:
    spread = Spread.of([0.5, 0.7])
    assert (spread.mean, spread.sd) == (pytest.approx(0.6), pytest.approx(0.1414, abs=1e-4))
    assert Spread.of([0.5]).sd is None
    assert Spread.of([0.5, None]).mean is None


def learned(step: int, *ap_by_step: tuple[int, float | None]) -> EvaluationReport:
    """As much of a report as the ceiling reads: AP of each class and the step that taught it."""
    entries = tuple(ClassReport.model_construct(step=of_step, metrics=Metrics(ap=ap)) for of_step, ap in ap_by_step)
    return EvaluationReport.model_construct(step=step, per_class=entries)


def test_the_ceiling_is_every_class_as_detected_right_after_its_own_step() -> None:
    runs = suite_runs(3, ["finetune", "erd"], [0, 1], upper_bounds=False)
    last = next(run for run in runs if run.name == "step3-finetune")
    reports = {
        "step1": learned(1, (1, 0.6), (1, 0.4)),
        "step2-finetune": learned(2, (1, 0.0), (1, 0.1), (2, 0.8)),
        "step3-finetune": learned(3, (1, 0.0), (1, 0.0), (2, 0.2), (3, 0.5), (3, None)),
        # Of other methods and seeds nothing counts.
        "step2-erd": learned(2, (1, 0.9), (1, 0.9), (2, 0.9)),
        "step1-seed1": learned(1, (1, 0.9), (1, 0.9)),
    }
    ceiling = _ceiling(last, runs, reports)
    assert ceiling is not None
    found = {name: ceiling[name] for name in ("ap_old", "ap_new", "ap_all")}
    assert found == pytest.approx(
        {"ap_old": (0.6 + 0.4 + 0.8) / 3, "ap_new": 0.5, "ap_all": (0.6 + 0.4 + 0.8 + 0.5) / 4}
    )
    del reports["step2-finetune"]
    assert _ceiling(last, runs, reports) is None
