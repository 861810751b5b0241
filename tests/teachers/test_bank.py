"""A bank on disk: what goes in comes out, image by image, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from ciod_core.config.schema import ResamplerConfig
from ciod_core.errors import CheckpointError
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.bank import METADATA_KEY, KnowledgeBank, read_identity, write_bank
from ciod_core.teachers.base import TeacherIdentity

IDENTITY = TeacherIdentity(
    teacher_sha256="ab" * 32, classes=("cat", "dog", "owl"), image_size=96, resampler=ResamplerConfig(rule="fixed")
)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def boxes(count: int, seed: int) -> Knowledge:
    rng = np.random.default_rng(seed)
    return Knowledge(
        boxes_K4=torch.from_numpy(rng.uniform(0, 90, (count, 4)).astype(np.float32)),
        labels_K=torch.from_numpy(rng.integers(0, 3, count)),
        scores_K=torch.from_numpy(rng.uniform(0, 1, count).astype(np.float32)),
        class_logits_KC=torch.from_numpy(rng.normal(0, 5, (count, 3)).astype(np.float32)),
        responses={"objectness": torch.from_numpy(rng.normal(0, 5, count).astype(np.float32))},
        image_K=torch.zeros(count, dtype=torch.int64),
        anchor_K=torch.full((count,), -1),
    )


def assert_same(found: Knowledge | None, expected: Knowledge) -> None:
    """Equal, logits up to half precision."""
    assert found is not None and len(found) == len(expected)
    for name in ("boxes_K4", "labels_K", "scores_K", "image_K", "anchor_K"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)
    torch.testing.assert_close(found.class_logits_KC, expected.class_logits_KC, rtol=1e-3, atol=1e-4)
    objectness = found.responses["objectness"], expected.responses["objectness"]
    torch.testing.assert_close(*objectness, rtol=1e-3, atol=1e-4)


@pytest.fixture
def known() -> dict[str, Knowledge]:
    counts = [3, 0, 1, 7, 0]
    return {digest(str(index)): boxes(count, index) for index, count in enumerate(counts)}


def test_every_image_gets_its_boxes_back(known: dict[str, Knowledge], tmp_path: Path) -> None:
    write_bank(tmp_path / "bank.safetensors", IDENTITY, known)
    bank = KnowledgeBank(tmp_path / "bank.safetensors")
    assert [sha256 for sha256, _ in bank.items()] == sorted(known)
    for sha256, found in bank.items():
        assert_same(found, known[sha256])
        assert_same(bank.get(sha256), known[sha256])


def test_an_image_that_was_never_asked_about_is_not_one_without_boxes(
    known: dict[str, Knowledge], tmp_path: Path
) -> None:
    write_bank(tmp_path / "bank.safetensors", IDENTITY, known)
    bank = KnowledgeBank(tmp_path / "bank.safetensors")
    for unknown in (digest("nothing"), "00" * 32, "ff" * 32):
        assert bank.get(unknown) is None and unknown not in bank


def test_hashes_that_end_in_zeros_are_told_apart(tmp_path: Path) -> None:
    """Bytes that end in zeros must not be taken for shorter ones."""
    known = {"61" + "00" * 31: boxes(1, 0), "6100" + "62" + "00" * 29: boxes(2, 1), "00" * 32: boxes(3, 2)}
    write_bank(tmp_path / "bank.safetensors", IDENTITY, known)
    bank = KnowledgeBank(tmp_path / "bank.safetensors")
    for sha256, expected in known.items():
        found = bank.get(sha256)
        assert found is not None and len(found) == len(expected)
    assert bank.get("6100" + "00" * 29 + "01") is None


def test_an_empty_bank(tmp_path: Path) -> None:
    write_bank(tmp_path / "bank.safetensors", IDENTITY, {})
    bank = KnowledgeBank(tmp_path / "bank.safetensors")
    assert len(bank) == 0 and bank.get(digest("0")) is None
    write_bank(tmp_path / "bank.safetensors", IDENTITY, {digest("0"): Knowledge.empty(3)})
    found = KnowledgeBank(tmp_path / "bank.safetensors").get(digest("0"))
    assert found is not None and found.class_logits_KC.shape == (0, 3)


def test_the_description_comes_back_and_tells_differences(tmp_path: Path) -> None:
    write_bank(tmp_path / "bank.safetensors", IDENTITY, {})
    found = read_identity(tmp_path / "bank.safetensors")
    assert found == IDENTITY and IDENTITY.difference(found) is None
    other = IDENTITY.model_copy(update={"resampler": ResamplerConfig(rule="crs")})
    assert IDENTITY.difference(other) == "resampler.rule is crs, not fixed"
    assert IDENTITY.difference(IDENTITY.model_copy(update={"image_size": 64})) == "image_size is 64, not 96"
    filtered = IDENTITY.model_copy(update={"resampler": ResamplerConfig(rule="fixed", ground_truth_iou=0.9)})
    assert IDENTITY.difference(filtered) is None, "labels are compared when training"


def test_a_bank_of_the_first_version_is_read(known: dict[str, Knowledge], tmp_path: Path) -> None:
    """It had no version, another name for the objectness, and at first no word about other teachers."""
    write_bank(tmp_path / "bank.safetensors", IDENTITY, known)
    tensors = load_file(tmp_path / "bank.safetensors")
    tensors["obj_logits_K"] = tensors.pop("objectness_K")
    first = IDENTITY.model_dump(mode="json", exclude={"teacher", "teacher_ids"})
    first["resampler"]["centre_score"] = first["resampler"].pop("center_score")
    save_file(tensors, tmp_path / "first.safetensors", {METADATA_KEY: json.dumps(first)})
    bank = KnowledgeBank(tmp_path / "first.safetensors")
    assert bank.identity == IDENTITY and not bank.identity.foreign
    for sha256, expected in known.items():
        assert_same(bank.get(sha256), expected)


@pytest.mark.parametrize("changes", [{"format_version": 99}, {"more": 1}])
def test_a_bank_of_a_later_version_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    write_bank(tmp_path / "bank.safetensors", IDENTITY, {})
    description = {"format_version": 2, "responses": {}, **IDENTITY.model_dump(mode="json")} | changes
    tensors = load_file(tmp_path / "bank.safetensors")
    save_file(tensors, tmp_path / "later.safetensors", {METADATA_KEY: json.dumps(description)})
    with pytest.raises(CheckpointError, match=r"written by a newer version of ciod|unknown to this version"):
        KnowledgeBank(tmp_path / "later.safetensors")


def test_what_is_no_bank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        KnowledgeBank(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        KnowledgeBank(tmp_path / "text.safetensors")
    save_file({"weight": np.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="is no knowledge bank"):
        KnowledgeBank(tmp_path / "weights.safetensors")
