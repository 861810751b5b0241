"""Whatever a file holds, reading it ends in a table that keeps its promises or in one line for the user."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from pathlib import Path

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
from tests.helpers.damage import damage

# $CIOD_FUZZ_CASES files, of which a few hundred find what thousands do.
CASES = int(os.environ.get("CIOD_FUZZ_CASES", "500"))


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
