"""A comparison on a Ray cluster of two nodes, here of processes of one machine."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ciod_core.config.resolve import resolve_config
from ciod_core.data.formats.source import DatasetSource
from ciod_core.errors import CiodError, ConfigError
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import STATE_FILE
from ciod_core.files import sha256_of_file
from ciod_core.runs.claim import PROCESS_FILE
from ciod_core.runs.compare.plan import Epochs, suite_runs
from ciod_core.runs.compare.pools import ray_pool
from ciod_core.runs.compare.runner import Cluster, RunProgress, run_suite
from ciod_core.temporaries import TEMPORARY
from tests.runs.test_compare import TINY, Recorder

ray: Any = pytest.importorskip("ray", reason="needs ray: pip install 'ciod[cluster]'")

METHODS = ["finetune", "lwf", "pseudo-label", "crs-ckd"]
SETTINGS = TINY | {"training.deterministic": True}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two nodes with one core each, and this process connected to them."""
    from ray.cluster_utils import Cluster as RayNodes

    # Workers have it from the nodes; with ciod installed they need none.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = RayNodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()
            nodes.shutdown()


class Interfering(Recorder):
    """Does something, once, when step 1 has a state that it can go on from."""

    def __init__(self, folder: Path, act: Callable[[int], None]) -> None:
        super().__init__()
        self.folder, self.act = folder, act
        self.trained_by = 0

    def running(self, runs: Sequence[RunProgress]) -> None:
        process = self.folder / PROCESS_FILE
        if not self.trained_by and process.exists() and (self.folder / STATE_FILE).exists():
            self.trained_by = json.loads(process.read_bytes())["pid"]
            self.act(self.trained_by)


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def interrupt(process: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_four_methods_on_two_nodes_and_one_worker_killed(
    cluster: None, shapes_dataset: DatasetSource, tmp_path: Path
) -> None:
    config, epochs = resolve_config(flags=SETTINGS), Epochs(first=30, later=2, joint=2)
    runs = suite_runs(2, METHODS, [0])
    experiment, alone = (create_experiment(shapes_dataset, "4+4", "name", tmp_path / name) for name in ("1", "2"))
    listener = Interfering(experiment.run_folder("step1"), kill)
    run_suite(experiment, runs, config, epochs, listener, cluster=Cluster())
    assert listener.trained_by not in (0, os.getpid())
    assert sorted(listener.done) == sorted(run.name for run in runs) and listener.errors == {}
    assert not list(experiment.folder.glob(f"{TEMPORARY}*"))
    # It is what one process trains that nobody kills.
    run_suite(alone, runs[:1], config, epochs, Recorder())
    assert sha256_of_file(alone.weights_path("step1")) == sha256_of_file(experiment.weights_path("step1"))


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_where_it_was(
    cluster: None, shapes_dataset: DatasetSource, tmp_path: Path
) -> None:
    config, epochs = resolve_config(flags=SETTINGS), Epochs(first=30, later=1)
    runs = suite_runs(2, ["finetune"], [0], upper_bounds=False)
    experiment = create_experiment(shapes_dataset, "4+4", "name", tmp_path / "experiment")
    with pytest.raises(KeyboardInterrupt):
        listener = Interfering(experiment.run_folder("step1"), interrupt)
        run_suite(experiment, runs, config, epochs, listener, cluster=Cluster())
    assert experiment.read().run("step1").status == "interrupted"
    run_suite(experiment, runs, config, epochs, Recorder(), cluster=Cluster())
    again = Recorder()
    run_suite(experiment, runs, config, epochs, again, cluster=Cluster())
    assert again.missing == 0


def test_more_gpus_than_there_are(cluster: None, tmp_path: Path) -> None:
    no_room = pytest.raises(ConfigError, match=r"`gpus` 2: no machine of the cluster has more than 0")
    with no_room, ray_pool(tmp_path, cpus=1, gpus=2):
        pass


def test_a_machine_that_does_not_share_the_folder(cluster: None, tmp_path: Path) -> None:
    with ray_pool(tmp_path, cpus=1, gpus=None) as pool:
        pool._token.unlink()  # type: ignore[attr-defined]
        outcome: object = pool.submit(len, "abc").result()
    assert isinstance(outcome, CiodError) and "put the experiment on storage that all its machines" in str(outcome)
