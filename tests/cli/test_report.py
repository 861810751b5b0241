"""`ciod report`: a page that needs nothing else, and Markdown."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ciod_core.classes import class_table
from ciod_core.evaluation.records import read_report
from ciod_core.evaluation.saved_detections import saved_detections
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.units import percent
from tests.cli.conftest import Ciod
from tests.helpers.class_names import HOSTILE_NAMES
from tests.helpers.experiments import make_experiment, make_run

VOID = {"meta", "link", "img", "br"}
# A page may name these without loading anything.
LOADING = ("src", "href", "srcset", "data", "action", "poster")


class Page(HTMLParser):
    """The elements of a page, whether they are closed in order, and its text by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.unbalanced: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self._open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if data.strip() and self._open[-1:] not in (["style"], ["script"]):
            self.texts.append(data.strip())

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def read_page(path: Path) -> Page:
    """Parse a report and check what holds for all of them."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.unbalanced
    assert not page.named("script", "iframe", "object", "embed")
    loaded = [value or "" for _, attributes in page.elements for name, value in attributes.items() if name in LOADING]
    assert [value for value in loaded if not value.startswith(("data:", "#"))] == []
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r'data:[^"]*"', "", text))
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert [value for value in loaded if value.startswith("#") and value[1:] not in ids] == []
    assert all(attributes.get("alt") for attributes in page.named("img"))
    assert all(attributes.get("aria-label") and attributes.get("role") == "img" for attributes in page.named("svg"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.named("th"))
    assert len(page.named("table")) == len(page.named("caption")) and len(page.named("html", "h1", "main")) == 3
    assert page.named("html") == [{"lang": "en"}]
    return page


@pytest.fixture
def reported(own_copy: Path, ciod: Ciod) -> tuple[Experiment, Page]:
    outcome = ciod("report", own_copy)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(own_copy / "report.html")
    assert (own_copy / "report.html").stat().st_size < 5_000_000
    return Experiment.open(own_copy), read_page(own_copy / "report.html")


def test_the_numbers_are_those_of_the_manifest(reported: tuple[Experiment, Page]) -> None:
    experiment, page = reported
    manifest, text = experiment.read(), " ".join(page.texts)
    for run in manifest.runs:
        assert f"AP {percent(run.metrics['all'])}" in text
        assert run.outputs["weights"].sha256[:16] in text
        for entry in read_report(experiment, run).per_class:
            assert run.kind == "joint" or percent(entry.metrics.ap) in page.texts
    for step in manifest.steps:
        assert f"{step.statistics.images:,}" in page.texts and f"{step.statistics.hidden_old_boxes:,}" in page.texts
    for name in ("loss", "lr", "kept per image", "joint training"):
        assert name in page.texts


def test_examples_show_truth_teacher_and_student(reported: tuple[Experiment, Page], ciod: Ciod) -> None:
    experiment, page = reported
    pictures = [attributes["alt"] or "" for attributes in page.named("img")]
    assert len(pictures) == 6 * 3
    assert ["ground truth" in alt for alt in pictures[:3]] == [True, False, False]
    assert "step1, the teacher" in pictures[1] and "step2" in pictures[2]
    assert ciod("report", experiment.folder, "--images", "0").code == 0
    assert not read_page(experiment.folder / "report.html").named("img")


def test_errors_need_detections_which_are_kept(own_copy: Path, ciod: Ciod) -> None:
    arguments = ("report", own_copy, "--images", "0")
    assert ciod(*arguments).code == 0
    assert "ciod report --detections" in (own_copy / "report.html").read_text()
    assert ciod(*arguments, "--detections").code == 0
    page = read_page(own_copy / "report.html")
    assert {"wrong class", "found in %", "F1 in %"} <= set(page.texts)
    experiment = Experiment.open(own_copy)
    found = saved_detections(experiment, experiment.read().run("step2"))
    assert found is not None and found.ground_truth.num_images == 12
    # Without images, the saved ones are enough.
    (own_copy / "step2.safetensors").unlink()
    assert ciod(*arguments, "--detections").code == 0
    # Those of other weights, and damaged ones, do not count.
    (own_copy / "step2" / "detections.json").write_text("[]")
    assert saved_detections(experiment, experiment.read().run("step2")) is None
    assert ciod(*arguments, "--detections").code == 4


def test_methods_are_compared_on_the_same_images(own_copy: Path, ciod: Ciod) -> None:
    experiment = Experiment.open(own_copy)
    record = experiment.read().run("step2")
    experiment.put_run(record.model_copy(update={"name": "same-weights", "method": "finetune"}))
    assert ciod("report", own_copy, "--images", "0", "--detections").code == 0
    texts = read_page(own_copy / "report.html").texts
    assert any(text.startswith("Difference to step2 in AP points, with the interval") for text in texts)
    assert texts.count("+0.0 (+0.0 … +0.0)") == 3


def test_without_images_the_rest_is_there(own_copy: Path, ciod: Ciod) -> None:
    for weights in own_copy.glob("*.safetensors"):
        weights.unlink()
    assert ciod("report", own_copy).code == 0
    page = read_page(own_copy / "report.html")
    assert any(text.startswith("No example images: ") for text in page.texts)
    assert len(page.named("svg")) > 5


@pytest.mark.parametrize("names", [HOSTILE_NAMES[:3], HOSTILE_NAMES[3:]])
def test_class_names_are_text(tmp_path: Path, ciod: Ciod, names: tuple[str, ...]) -> None:
    experiment = make_experiment(tmp_path)
    make_run(experiment, "step1", 1, status="failed")
    manifest = experiment.read()
    text = manifest.model_dump_json()
    for name, other in zip(manifest.classes.names, names, strict=True):
        text = text.replace(json.dumps(name), json.dumps(other))
    experiment.write(ExperimentManifest.model_validate_json(text))
    assert experiment.read().classes == class_table([[(names[0], 1), (names[1], 2)], [(names[2], 7)]])
    assert ciod("report", tmp_path).code == 0
    assert set(names) <= set(read_page(tmp_path / "report.html").texts)
    assert ciod("report", tmp_path, "--format", "md").code == 0
    text = (tmp_path / "report.md").read_text()
    # What Markdown or its HTML would obey has a backslash before it.
    assert not re.search(r"(?<!\\)<(?!!--)", text)
    assert all(" ".join(name.split()) in text.replace("\\", "") for name in names)


def test_markdown_has_its_pictures_beside_it(own_copy: Path, ciod: Ciod, tmp_path: Path) -> None:
    outcome = ciod("report", own_copy, "--out", tmp_path / "page.md", "--json")
    assert json.loads(outcome.out) == {
        "experiment": str(own_copy), "report": str(tmp_path / "page.md"), "format": "md",
    }  # fmt: skip
    text = (tmp_path / "page.md").read_text()
    shown = re.findall(r"!\[.+\]\((page\.files/\S+)\)", text)
    assert {Path(name).suffix for name in shown} == {".svg", ".jpg"}
    assert {(tmp_path / name) for name in shown} == set((tmp_path / "page.files").iterdir())
    assert "xmlns" in (tmp_path / "page.files" / "ap-all.svg").read_text()
    tables = [line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("|---")]
    assert tables and "\n\n|---" not in text


def test_a_plan_without_runs(tmp_path: Path, ciod: Ciod) -> None:
    make_experiment(tmp_path)
    assert ciod("report", tmp_path).code == 0
    texts = read_page(tmp_path / "report.html").texts
    assert "No run was evaluated yet." in texts and any("ciod train-step" in text for text in texts)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--format", "pdf"), "unknown format 'pdf'"),
        (("--out", "report.txt"), "a report ends in .html or .md"),
        (("--out", "a.html", "--format", "md"), "a report ends in .md"),
        (("--out", "experiment.html"), "it is there and no report of ciod"),
        (("--out", "folder.html"), "it is a folder"),
        (("--images", "-1"), "--images"),
        (("--experiment", "."), "the experiment is given twice"),
    ],
)
def test_what_cannot_be_written(
    tmp_path: Path, ciod: Ciod, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], expected: str
) -> None:
    make_experiment(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("experiment.html").write_text("mine")
    Path("folder.html").mkdir()
    outcome = ciod("report", ".", *arguments)
    assert outcome.code == 2 and expected in outcome.error_line
    assert Path("experiment.html").read_text() == "mine"


def test_a_browser_shows_it_without_an_error(reported: tuple[Experiment, Page], tmp_path: Path) -> None:
    browser = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no browser: install chromium")
    url = (reported[0].folder / "report.html").as_uri()
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}")
    shown = subprocess.run(
        [browser, *flags, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True
    )
    assert "Average precision" in shown.stdout
    assert "CONSOLE" not in shown.stderr
