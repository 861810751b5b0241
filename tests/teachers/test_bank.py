"""A bank on disk: what goes in comes out, image by image, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ciod_core.config.schema import ResamplerConfig
from ciod_core.errors import CheckpointError
from ciod_core.model.knowledge import ImageKnowledge, no_answers
from ciod_core.teachers.bank import METADATA_KEY, BankInfo, KnowledgeBank, read_bank_info, write_bank

INFO = BankInfo(
    teacher_sha256="ab" * 32, classes=("cat", "dog", "owl"), image_size=96, resampler=ResamplerConfig(rule="fixed")
)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def answers(count: int, seed: int) -> ImageKnowledge:
    rng = np.random.default_rng(seed)
    return ImageKnowledge(
        boxes_K4=rng.uniform(0, 90, (count, 4)).astype(np.float32),
        labels_K=rng.integers(0, 3, count),
        class_logits_KC=rng.normal(0, 5, (count, 3)).astype(np.float32),
        obj_logits_K=rng.normal(0, 5, count).astype(np.float32),
        scores_K=rng.uniform(0, 1, count).astype(np.float32),
    )


@pytest.fixture
def known() -> dict[str, ImageKnowledge]:
    counts = [3, 0, 1, 7, 0]
    return {digest(str(index)): answers(count, index) for index, count in enumerate(counts)}


def test_every_image_gets_back_what_was_said_about_it(known: dict[str, ImageKnowledge], tmp_path: Path) -> None:
    write_bank(tmp_path / "bank.safetensors", INFO, known)
    bank = KnowledgeBank(tmp_path / "bank.safetensors")
    assert (len(bank), bank.num_answers, bank.hashes) == (5, 11, sorted(known))
    for sha256, expected in known.items():
        found = bank.of_image(sha256)
        assert found is not None and len(found) == len(expected)
        for name, array in vars(expected).items():
            ours = getattr(found, name)
            assert ours.dtype == array.dtype
            np.testing.assert_allclose(ours, array, rtol=0 if name in ("boxes_K4", "labels_K", "scores_K") else 1e-3)
    assert {sha256: len(entry) for sha256, entry in bank.all_answers()} == {
        sha256: len(entry) for sha256, entry in known.items()
    }


def test_an_image_that_was_never_asked_about_is_not_one_without_answers(
    known: dict[str, ImageKnowledge], tmp_path: Path
) -> None:
    write_bank(tmp_path / "bank.safetensors", INFO, known)
    bank = KnowledgeBank(tmp_path / "bank.safetensors")
    for unknown in (digest("nothing"), "00" * 32, "ff" * 32):
        assert bank.of_image(unknown) is None


def test_hashes_that_end_in_zeros_are_told_apart(tmp_path: Path) -> None:
    """Bytes that end in zeros must not be taken for shorter ones."""
    known = {"61" + "00" * 31: answers(1, 0), "6100" + "62" + "00" * 29: answers(2, 1), "00" * 32: answers(3, 2)}
    write_bank(tmp_path / "bank.safetensors", INFO, known)
    bank = KnowledgeBank(tmp_path / "bank.safetensors")
    for sha256, expected in known.items():
        found = bank.of_image(sha256)
        assert found is not None and len(found) == len(expected)
    assert bank.of_image("6100" + "00" * 29 + "01") is None


def test_an_empty_bank(tmp_path: Path) -> None:
    write_bank(tmp_path / "bank.safetensors", INFO, {})
    bank = KnowledgeBank(tmp_path / "bank.safetensors")
    assert len(bank) == 0 and bank.of_image(digest("0")) is None
    write_bank(tmp_path / "bank.safetensors", INFO, {digest("0"): no_answers(3)})
    found = KnowledgeBank(tmp_path / "bank.safetensors").of_image(digest("0"))
    assert found is not None and found.class_logits_KC.shape == (0, 3)


def test_a_bank_can_be_handed_to_a_loading_worker(known: dict[str, ImageKnowledge], tmp_path: Path) -> None:
    write_bank(tmp_path / "bank.safetensors", INFO, known)
    bank = KnowledgeBank(tmp_path / "bank.safetensors")
    first = digest("0")
    assert bank.of_image(first) is not None
    copy = pickle.loads(pickle.dumps(bank))
    found = copy.of_image(first)
    assert found is not None and len(found) == 3


def test_the_description_comes_back_and_tells_differences(tmp_path: Path) -> None:
    write_bank(tmp_path / "bank.safetensors", INFO, {})
    found = read_bank_info(tmp_path / "bank.safetensors")
    assert found == INFO and INFO.difference(found) is None
    other = INFO.model_copy(update={"resampler": ResamplerConfig(rule="crs")})
    assert INFO.difference(other) == "resampler.rule is crs, not fixed"
    assert INFO.difference(INFO.model_copy(update={"image_size": 64})) == "image_size is 64, not 96"
    filtered = INFO.model_copy(update={"resampler": ResamplerConfig(rule="fixed", ground_truth_iou=0.9)})
    assert INFO.difference(filtered) is None, "labels are compared when training"


def test_a_bank_from_before_other_teachers_is_read(tmp_path: Path) -> None:
    old = INFO.model_dump(mode="json", exclude={"teacher", "teacher_ids"})
    save_file(
        {"hashes_I32": np.zeros((0, 32), np.uint8)}, tmp_path / "bank.safetensors", {METADATA_KEY: json.dumps(old)}
    )
    found = read_bank_info(tmp_path / "bank.safetensors")
    assert found == INFO and not found.foreign


def test_what_is_no_bank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        KnowledgeBank(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        KnowledgeBank(tmp_path / "text.safetensors")
    save_file({"weight": np.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="is no knowledge bank"):
        KnowledgeBank(tmp_path / "weights.safetensors")
