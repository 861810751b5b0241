"""Whatever a file holds, reading it ends soon: in its content, or in the one line and the exit code of its kind.

`CIOD_FUZZ_CASES` sets the number of damaged files for each reader.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciod_core.data.check import check_dataset
from ciod_core.data.formats.source import resolve_dataset
from tests.helpers.damage import damage
from tests.helpers.readers import READERS, make_yolo, time_limit

CASES = int(os.environ.get("CIOD_FUZZ_CASES", "30"))

FRAGMENTS = (
    b"a" * 300,
    *(b"\0", b"\n", b"\xff", b"\x1b[31m", b"\xe2\x80\xae", b"\r", b"9" * 5000, b"-1", b"1e999", b"NaN", b"../" * 3000),
    *(
        b"[" * 3000,
        b"{" * 3000,
        b"- " * 3000,
        b"<a>" * 3000,
        b'"' * 100,
        b"a" * 100_000,
        b"a" * 300,
        b"\xcc\x81\xcc\xa7" * 20_000,
    ),
    *(b"&a [*a, *a]", b"<<: *t", b"!!bool x", b"!!timestamp x", b"0001-01-01T00:00:00+23:59", b"2020-13-45", b"? [a]"),
    *(
        b'<!DOCTYPE a [<!ENTITY b "c">]>',
        b"&b;",
        b"encoding='utf-7'",
        b"1" * 4000 + b": x\n",
        b"\n" * 10_000,
        b"0.5 " * 9999,
    ),
)


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """The bytes of a file with up to three faults."""
    text = sound
    for _ in range(draw(st.integers(1, 3))):
        first, last = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, min(len(text), 2000)))))
        match draw(st.sampled_from(["structure"] * 4 + ["insert"] * 3 + ["cut", "flip", "remove", "repeat", "other"])):
            case "structure":
                text = damaged_structure(draw(st.data()), text)
            case "insert":
                text = text[:last] + draw(st.sampled_from(FRAGMENTS)) + text[last:]
            case "cut":
                text = text[:last]
            case "flip" if text:
                place = draw(st.integers(0, len(text) - 1))
                text = text[:place] + bytes([draw(st.integers(0, 255))]) + text[place + 1 :]
            case "remove":
                text = text[:first] + text[last:]
            case "repeat":
                text = text[:last] + text[first:last] * draw(st.integers(1, 50)) + text[last:]
            case "other":
                text = draw(st.binary(max_size=50))
    return text


def damaged_structure(data: st.DataObject, content: bytes) -> bytes:
    """A JSON file, or the header of a safetensors file and the description in it, with a value changed."""
    try:
        if content[:1] in (b"[", b"{"):
            document = json.loads(content)
            damage(data, document)
            return json.dumps(document).encode("utf-8", errors="surrogatepass")
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        if data.draw(st.booleans()):
            for key, value in header["__metadata__"].items():
                description = json.loads(value)
                damage(data, description)
                header["__metadata__"][key] = json.dumps(description)
        else:
            damage(data, header)
        encoded = json.dumps(header).encode("utf-8", errors="surrogatepass")
        return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]
    except (ValueError, KeyError, IndexError, AttributeError, RecursionError, TypeError):
        return content


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    reader = READERS[kind]
    if kind == "onnx model":
        pytest.importorskip("onnxruntime")
    sound = tmp_path / "sound"
    sound.mkdir()
    reader.make(sound)
    content = (sound / reader.name).read_bytes()
    reader.read(sound / reader.name)

    @settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(damaged(content))
    def check(content: bytes) -> None:
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, folder)
        (folder / reader.name).write_bytes(content)
        with time_limit(), suppress(*reader.refusals):
            reader.read(folder / reader.name)

    check()


@pytest.mark.parametrize("kind", ["yolo list", "voc list"])
@pytest.mark.parametrize("name", [f"{'a' * 300}/b.png", f"{'a/' * 1500}b.png", f"{'a/' * 3000}b.png"])
def test_names_longer_than_file_systems_allow(kind: str, name: str, tmp_path: Path) -> None:
    reader = READERS[kind]
    reader.make(tmp_path)
    with (tmp_path / reader.name).open("a") as file:
        file.write(f"{name}\n")
    health = check_dataset(resolve_dataset(str(tmp_path)))
    assert any("a" * 300 in finding.message or "a/a" in finding.message for finding in health.all_findings)


def test_a_path_that_climbs_to_the_root_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda folder: searched.append(Path(folder)) or walk(folder))  # type: ignore[func-returns-value]
    make_yolo(tmp_path)
    with (tmp_path / "train.txt").open("a") as file:
        file.write("../" * 1000 + "x.png\n")
    check_dataset(resolve_dataset(str(tmp_path)))
    assert searched and all(folder.is_relative_to(tmp_path) for folder in searched)
