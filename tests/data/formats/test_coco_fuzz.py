"""Whatever a file holds, reading it ends in a table that keeps its promises or in one line for the user."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciod_core.data.annotations.findings import Severity
from ciod_core.data.annotations.inspection import inspect
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.check import survey
from ciod_core.data.formats.coco import parse_coco, read_coco, write_coco
from ciod_core.errors import DataError
from tests.data.conftest import CONTENT

CASES = 2000
NAN, INF = float("nan"), float("inf")

odd_numbers = st.sampled_from(
    [
        0,
        -1,
        1,
        2,
        40,
        2**31,
        2**53,
        2**53 + 1,
        -(2**63),
        2**64,
        10**400,
        0.5,
        -0.0,
        -3.5,
        1e308,
        -1e308,
        1e-320,
        NAN,
        INF,
    ]
)
odd_texts = st.sampled_from(["", " ", "\0", "..", "../a", "/a", "C:\\a", "a\nb", "\ud800", "ü", "a" * 5000, "NaN", "1"])
odd_values = st.one_of(
    odd_numbers,
    odd_texts,
    st.none(),
    st.booleans(),
    st.just([]),
    st.just({}),
    st.lists(odd_numbers, max_size=6),
    st.recursive(
        st.integers(), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner)
    ),
)
existing_ids = st.sampled_from([30, 7, 12, 5, 0, 9, 2, 18, 3])  # ids of images, boxes and classes, mixed up


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything below a JSON value."""
    if isinstance(node, dict):
        children = list(node.items())
    elif isinstance(node, list):
        children = list(enumerate(node))
    else:
        return [path]
    return [path, *(found for key, child in children for found in places(child, (*path, key)))]


def damage(data: st.DataObject, content: dict[str, Any]) -> None:
    """Do one thing to the content that somebody's export script has done before."""
    found = [path for path in places(content) if path]
    leaves = [path for path in found if len(path) > 2]
    # Most faults leave the types right: those get past the parser.
    place = data.draw(st.sampled_from(leaves if leaves and data.draw(st.integers(0, 9)) else found))
    parent: Any = content
    for key in place[:-1]:
        parent = parent[key]
    value = parent[place[-1]]
    match data.draw(st.sampled_from(["alike"] * 6 + ["id"] * 4 + ["repeat"] * 2 + ["replace", "remove", "add"])):
        case "alike" if isinstance(value, float | int):
            parent[place[-1]] = data.draw(odd_numbers)
        case "alike" if isinstance(value, str):
            parent[place[-1]] = data.draw(odd_texts)
        case "id" if isinstance(value, int):
            parent[place[-1]] = data.draw(existing_ids)
        case "repeat" if isinstance(parent, list):
            parent.append(copy.deepcopy(value))
        case "replace":
            parent[place[-1]] = data.draw(odd_values)
        case "remove":
            del parent[place[-1]]
        case "add" if isinstance(parent, dict):
            parent[data.draw(st.sampled_from(["id", "bbox", "iscrowd", "area", "extra"]))] = data.draw(odd_values)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """Bytes of a COCO file with up to five faults in its values and perhaps one in its text."""
    content = copy.deepcopy(CONTENT)
    data = draw(st.data())
    for _ in range(draw(st.integers(0, 5))):
        if content:
            damage(data, content)
    encoded = json.dumps(content).encode("utf-8", errors="surrogatepass")
    position = draw(st.integers(0, len(encoded)))
    match draw(st.sampled_from(["whole"] * 30 + ["cut", "bytes", "utf-16", "latin-1", "bom"])):
        case "cut":
            return encoded[:position]
        case "bytes":
            return encoded[:position] + draw(st.binary(max_size=3)) + encoded[position:]
        case "utf-16":
            return encoded.decode("utf-8", errors="replace").encode("utf-16")
        case "latin-1":
            return json.dumps(content, ensure_ascii=False).encode("latin-1", errors="replace")
        case "bom":
            return b"\xef\xbb\xbf" + encoded
    return encoded


def check_promises(table: AnnotationTable) -> None:
    """What everything behind the reader relies on."""
    assert len(set(table.image_ids_I.tolist())) == table.num_images
    assert np.isfinite(table.boxes_N4).all()
    assert (table.boxes_N4[:, 2:] > table.boxes_N4[:, :2]).all()
    assert np.isfinite(table.areas_N).all()
    assert (table.areas_N >= 0).all()
    limits_N2 = np.stack([table.widths_I, table.heights_I], axis=1)[table.image_of_box_N]
    assert (table.boxes_N4[:, :2] >= -1.001).all()
    assert (table.boxes_N4[:, 2:] <= limits_N2 + 1.001).all()
    assert set(table.category_ids_N.tolist()) <= {category.id for category in table.categories}


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(damaged_files())
def test_any_file_gives_a_sound_table_or_one_line(encoded: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        path.write_bytes(encoded)
        try:
            raw = parse_coco(path)
        except DataError as error:
            check_message(str(error), path)
            return
        table, findings = inspect(raw)
        check_promises(table)
        survey(raw, table, findings)
        errors = [finding for finding in findings if finding.severity is Severity.ERROR]
        for finding in findings:
            check_message(finding.message, path)
        try:
            strict = read_coco(path)
        except DataError as error:
            assert errors
            check_message(str(error), path)
            return
        assert not errors
        write_coco(strict, path)
        check_promises(read_coco(path))


def check_message(message: str, path: Path) -> None:
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 10_000
