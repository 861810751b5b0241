"""An experiment as the code before format versions wrote it, with one run of every kind.

In the archive all weights are zeros, so that it stays small; they are filled here, because zeros cannot be trained.
Names, layout and descriptions stay as they were written.
"""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ciod_core.files import sha256_of_file
from tests.cli.conftest import Ciod, ciod

__all__ = ["Ciod", "ciod"]

ARCHIVE = Path(__file__).parent / "format1.tar.xz"
BANK = "step2.knowledge.safetensors"


@pytest.fixture(scope="session")
def format1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment; read only."""
    root = tmp_path_factory.mktemp("format1")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    folder = root / "experiment"
    text = (folder / "experiment.json").read_text().replace("@FOLDER@", root.as_posix())
    new_hashes: dict[str, str] = {}
    weights = [path for path in sorted(folder.glob("*.safetensors")) if path.name != BANK]
    for path in (*weights, *folder.glob("*/state/*.safetensors"), folder / BANK):
        before = sha256_of_file(path)
        _fill(path, new_hashes)
        new_hashes[before] = sha256_of_file(path)
    (folder / "experiment.json").write_text(_replaced(text, new_hashes))
    return folder


@pytest.fixture
def own_format1(format1: Path, tmp_path: Path) -> Path:
    """A copy of the experiment that a test may change."""
    return Path(shutil.copytree(format1, tmp_path / "experiment"))


def _fill(path: Path, new_hashes: dict[str, str]) -> None:
    """Give the weights of a file values, and its description the new hashes of other files."""
    with safe_open(path, framework="pt") as file:
        metadata = {key: _replaced(value, new_hashes) for key, value in file.metadata().items()}
        tensors = {name: _filled(name, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata=metadata)


def _filled(name: str, tensor: Tensor) -> Tensor:
    if name.endswith("pixel_std"):
        return torch.full_like(tensor, 57.0)
    if name.endswith("running_var") or (name.endswith(".weight") and tensor.ndim == 1):
        return torch.ones_like(tensor)
    if name.endswith(".weight") and tensor.ndim == 4:
        # The average of a training state gets the values of its student.
        generator = torch.Generator().manual_seed(zlib.crc32(name.rpartition("/")[2].encode()))
        return torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
    return tensor


def _replaced(text: str, new_hashes: dict[str, str]) -> str:
    for before, after in new_hashes.items():
        text = text.replace(before, after)
    return text
