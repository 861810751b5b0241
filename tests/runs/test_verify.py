"""Every file of an experiment is verified: no flipped bit stays unseen, and what it affects is named.

`CIOD_BIT_FLIPS` sets the number of flips in each file.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ciod_core.config.schema import ResamplerConfig
from ciod_core.data.images.hashes import ImageHashes, read_hashed_files, write_hashed_files
from ciod_core.errors import CheckpointError
from ciod_core.experiment.folder import HASHES_NAME, STATE_FILE, TRAINING_LOCK, Experiment
from ciod_core.experiment.images import images_file, recorded_images
from ciod_core.runs.train import train_step
from ciod_core.runs.verify import Verification, accept_changes, verify
from ciod_core.teachers import bank
from ciod_core.teachers.bank import write_bank
from ciod_core.teachers.base import TeacherIdentity
from ciod_core.training import resume
from ciod_core.training.resume import TrainingState, save_state
from tests.helpers.experiments import make_run
from tests.training.conftest import tiny_config

FLIPS = int(os.environ.get("CIOD_BIT_FLIPS", "2"))
# What no result depends on.
LOCKS = (".experiment.lock", TRAINING_LOCK)


@pytest.fixture
def taught(taught_folder: Path, tmp_path: Path) -> Experiment:
    """An own copy of the chain, with a bank, the state of an unfinished run, and the images inside."""
    experiment = Experiment.open(Path(shutil.copytree(taught_folder, tmp_path / "experiment")))
    identity = TeacherIdentity(teacher_sha256="ab" * 32, classes=("a",), image_size=64, resampler=ResamplerConfig())
    write_bank(experiment.knowledge_path("step2"), identity, {})
    make_run(experiment, "step2", 2, parent="step1", status="interrupted")
    for epoch in (1, 2):
        save_state(experiment.run_folder("step2"), TrainingState(epoch, 0.0, (), {"student": {"a": torch.ones(2)}}))
    return experiment


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def broken(experiment: Experiment) -> dict[str, tuple[str, ...]]:
    return {link.path: link.affects for link in verify(experiment).broken}


def image_of(experiment: Experiment) -> Path:
    """One of the images that the experiment has used."""
    return experiment.folder / next(iter(json.loads(images_file(experiment).read_text())["files"]))


def test_a_sound_experiment(taught: Experiment) -> None:
    before = {path: path.read_bytes() for path in taught.folder.rglob("*") if path.is_file()}
    found = verify(taught)
    assert found.broken == () and found.images == 32 and found.files > 10
    assert {path: path.read_bytes() for path in taught.folder.rglob("*") if path.is_file()} == before


def test_no_flipped_bit_stays_unseen(taught: Experiment) -> None:
    draw = random.Random(0)
    paths = [path for path in taught.folder.rglob("*") if path.is_file() and path.name not in LOCKS]
    seen = []
    for path in sorted(paths):
        content = path.read_bytes()
        if path.name == HASHES_NAME:
            continue
        for _ in range(FLIPS):
            flip(path, draw.randrange(8 * min(len(content), draw.choice((500, 2**30)))))
            if path == taught.manifest_path:
                with pytest.raises(CheckpointError):
                    verify(taught)
            else:
                assert any(path.name in link.path for link in verify(taught).broken), path
            seen.append(path.name)
            path.write_bytes(content)
    assert {STATE_FILE.name, "previous.safetensors", "step2.knowledge.safetensors", "config.yaml"} <= set(seen)
    assert {"images.json", "experiment.json", "step1.safetensors", "metrics.json", "step1.val.json"} <= set(seen)


@pytest.mark.parametrize(
    ("name", "key"),
    [("step2/state/last.safetensors", resume.METADATA_KEY), ("step2.knowledge.safetensors", bank.METADATA_KEY)],
)
def test_the_key_that_says_of_which_kind_a_file_is_counts_too(name: str, key: str, taught: Experiment) -> None:
    path = taught.folder / name
    content = path.read_bytes()
    place = content.index(f'"{key}"'.encode()) + 1
    path.write_bytes(content[:place] + b"x" + content[place + 1 :])
    assert list(broken(taught)) == [name]


def test_a_flipped_bit_in_the_cache_of_hashes_loses_the_cache_alone(tmp_path: Path) -> None:
    image, cache = tmp_path / "1.png", tmp_path / "cache"
    image.write_bytes(b"one")
    os.utime(image, (1e9, 1e9))
    hashes = ImageHashes(cache)
    hashes.get(image)
    hashes.save()
    content = cache.read_bytes()
    for bit in range(8 * len(content)):
        flip(cache, bit)
        with pytest.raises(ValueError):  # noqa: PT011 - of msgspec, or of the checksum
            read_hashed_files(cache)
        assert ImageHashes(cache).cached(image) is None
        cache.write_bytes(content)


def test_a_missing_record_of_the_images_is_noticed(taught: Experiment) -> None:
    images_file(taught).unlink()
    assert broken(taught) == {"splits/images.json": ("step1",)}


def remove(path: Path) -> None:
    path.unlink()


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize("harm", [edit, remove])
@pytest.mark.parametrize(
    ("name", "affects"),
    [
        ("splits/step1.train.json", ("step 1", "step1", "step2")),
        ("splits/step2.val.json", ("step 2",)),
        ("step1.safetensors", ("step1", "step2")),
        ("step1/metrics.json", ("step1", "step2")),
    ],
)
def test_what_depends_on_a_broken_file_is_named(
    harm: Callable[[Path], None], name: str, affects: tuple[str, ...], taught: Experiment
) -> None:
    harm(taught.folder / name)
    assert broken(taught) == {name: affects}


class TestImages:
    @pytest.fixture
    def image(self, taught: Experiment, shapes_copy: Path) -> Path:
        """One of the images, which a test may change."""
        return image_of(own_images(taught, shapes_copy))

    def test_an_image_of_the_same_size_is_noticed_when_a_run_starts(self, taught: Experiment, image: Path) -> None:
        image.write_bytes(image.read_bytes()[:-1] + b"!")
        with pytest.raises(CheckpointError, match=r"1 of 32 images were changed since they were first used here"):
            train_step(taught, tiny_config(epochs=1), run="again")

    def test_a_copy_is_the_same_image(self, taught: Experiment, image: Path) -> None:
        content = image.read_bytes()
        image.unlink()
        image.write_bytes(content)
        assert broken(taught) == {}

    def test_also_one_with_the_modification_time_of_before(self, taught: Experiment, image: Path) -> None:
        stat = image.stat()
        image.write_bytes(image.read_bytes()[:-1] + b"!")
        os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        (affects,) = broken(taught).values()
        assert affects[0] == "step 1" and {"step1", "step2"} <= set(affects)

    def test_it_can_be_accepted(self, taught: Experiment, image: Path) -> None:
        image.write_bytes(image.read_bytes() + b"\0")
        found = accept_changes(taught)
        assert found.broken == () and [change.path for change in taught.read().accepted] == [str(image)]
        assert broken(taught) == {}
        assert train_step(taught, tiny_config(epochs=1), run="again").status == "finished"


def own_images(experiment: Experiment, folder: Path) -> Experiment:
    """The same experiment on a copy of its dataset."""
    before = image_of(experiment).parents[1].as_posix()
    text = experiment.manifest_path.read_text().replace(before, folder.as_posix())
    experiment.manifest_path.write_text(json.dumps(json.loads(text) | {"checksum": None}))
    images = recorded_images(experiment)
    write_hashed_files(
        images_file(experiment), {path.replace(before, folder.as_posix()): image for path, image in images.items()}
    )
    return experiment


class TestAccepting:
    def test_a_changed_split_is_recorded_as_it_is_now(self, taught: Experiment) -> None:
        split = taught.folder / "splits" / "step1.train.json"
        edit(split)
        before = taught.read().steps[0].train
        found = accept_changes(taught)
        assert [change.path for change in found.accepted] == ["splits/step1.train.json"]
        manifest = taught.read()
        after = manifest.steps[0].train
        assert before is not None and after is not None and after.sha256 != before.sha256
        assert taught.verified_split(after) == split
        assert manifest.run("step1").inputs["train"] == before, "it was trained on that"
        assert broken(taught) == {}

    def test_what_a_run_wrote_is_not_accepted(self, taught: Experiment) -> None:
        edit(taught.weights_path("step1"))
        assert [link.path for link in accept_changes(taught).broken] == ["step1.safetensors"]
        assert taught.read().accepted == ()

    def test_an_edited_manifest(self, taught: Experiment) -> None:
        text = taught.manifest_path.read_text()
        taught.manifest_path.write_text(text.replace('"interrupted"', '"failed"'))
        with pytest.raises(CheckpointError, match=r"is damaged, or was edited; restore it, or accept the edit with"):
            Experiment.open(taught.folder)
        found: Verification = accept_changes(Experiment.open(taught.folder, edited=True))
        assert found.broken == () and [change.path for change in found.accepted] == ["experiment.json"]
        assert Experiment.open(taught.folder).read().run("step2").status == "failed"
