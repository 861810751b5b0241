"""`ciod distill`: run a teacher once on the next step's images and save its selected predictions to a bank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ciod_cli import console
from ciod_cli.completion import run_names
from ciod_cli.options import EXPERIMENT, JSON, OVERWRITE, option, with_options
from ciod_cli.settings import SettingsCommand, settings
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciod_core.data.formats.write import WrittenFormat
    from ciod_core.teachers.report import BankSummary, ClassKnowledge, StepBank
    from ciod_core.teachers.sources import TeacherOptions

_BAR_LENGTH = 40
LABELS_FORMATS: tuple[WrittenFormat, ...] = ("coco", "yolo")


@dataclass(frozen=True)
class TeacherChoice:
    """The options that choose a teacher and how it runs."""

    teacher: Path | None = option(
        "--teacher",
        "Weights (or run), any detector: COCO results (.json), model (.onnx), or labels: COCO file, dataset folder. "
        "Default: the only leaf run.",
        metavar="FILE",
        autocompletion=run_names,
    )
    step: int | None = option("--step", "All but weights: step whose images they cover. Default: 2.")
    teacher_classes: Path | None = option(
        "--teacher-classes",
        "Results and models that do not name their classes: COCO file, or text with a class per line.",
        metavar="FILE",
    )
    flip: bool = option("--flip", "Average predictions with those for mirrored images.", False)
    scales: str | None = option("--scales", "Average over further sizes, as multiples: 0.75,1.25.")

    def options(self, images: Path | None = None) -> TeacherOptions:
        """The teacher for the images of a step, or of the folder `images`.

        Raises:
            ConfigError: a part of `scales` that is no number, or out of range.
        """
        from ciod_core.teachers.sources import TeacherOptions

        try:
            multiples = tuple(float(part) for part in (self.scales or "").split(",") if part.strip())
        except ValueError:
            raise ConfigError(
                f"`scales` {self.scales}: not numbers with commas between them, such as 0.75,1.25"
            ) from None
        if any(not 0.1 <= multiple <= 4 for multiple in multiples):
            raise ConfigError(f"`scales` {self.scales}: a multiple of the image size lies between 0.1 and 4")
        return TeacherOptions(self.teacher, self.step, self.teacher_classes, images, self.flip, multiples)


BANK = option("--out", "The bank. Default: stepN.knowledge.safetensors.", metavar="FILE")


class DistillCommand(SettingsCommand):
    """Reports that `--into` became the command `distill-into`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(argument.partition("=")[0] == "--into" for argument in args):
            console.fail("--into: this is now a separate command; run 'ciod distill-into MODEL' with the same options")
            raise typer.Exit(2)
        return super().parse_args(ctx, args)


@with_options("data.unlabeled", "data.workers", "training.device")
def distill(
    *,
    experiment: Path | None = EXPERIMENT,
    teacher: TeacherChoice,
    out: Path | None = BANK,
    draw: int = option("--draw", "Number of sample images to draw, as PNG beside the bank.", 0, min=0),
    write_labels: Path | None = option(
        "--write-labels",
        "New folder for a dataset to review in a labeling tool: the step's labels and the bank's boxes.",
        metavar="FOLDER",
    ),
    labels_format: str = option(
        "--labels-format",
        f"Its format: {' or '.join(LABELS_FORMATS)}.",
        LABELS_FORMATS[0],
        metavar="|".join(LABELS_FORMATS),
        autocompletion=lambda: list(LABELS_FORMATS),
    ),
    overwrite: bool = OVERWRITE,
    json: bool = JSON,
) -> None:
    """Run the teacher once on the next step's images and save its selected predictions to a bank."""
    from ciod_core.experiment.folder import Experiment

    config, options = settings(), teacher.options()
    found = Experiment.find(experiment, teacher.teacher)
    chosen = next((name for name in LABELS_FORMATS if name == labels_format), None)
    if chosen is None:
        raise ConfigError(f"`labels_format`: unknown format '{labels_format}'; choose from {', '.join(LABELS_FORMATS)}")
    if write_labels is not None:
        from ciod_core.data.formats.write import require_free

        require_free(write_labels, "write_labels")

    from ciod_cli.progress import progress_counter
    from ciod_core.teachers.distill import distill
    from ciod_core.teachers.pictures import draw_samples
    from ciod_core.teachers.report import summarize

    with progress_counter("Running the teacher", "images", at_once=False) as on_images:
        bank = distill(found, config, options, out=out, overwrite=overwrite, on_images=on_images)
    for note in bank.notes:
        console.note(note)
    if write_labels is not None:
        from ciod_core.teachers.review import write_labels as write

        written = write(bank, write_labels, chosen, config.resampler.ground_truth_iou)
        console.note(
            f"Wrote {written.num_own:,} labels of the step and {written.num_teacher:,} boxes of old classes to "
            f"{write_labels}"
        )
    summary, pictures = summarize(bank), draw_samples(bank, draw) if draw else ()
    if json:
        console.show_json(
            {
                "bank": str(bank.path),
                "bytes": bank.path.stat().st_size,
                "step": bank.step,
                "asked": bank.num_new,
                "notes": bank.notes,
                "description": bank.teacher.identity.model_dump(mode="json"),
                "summary": summary.model_dump(mode="json"),
                "pictures": [str(picture) for picture in pictures],
                "labels": None if write_labels is None else str(write_labels),
            }
        )
        return
    _show(bank, summary, pictures)


def _show(bank: StepBank, summary: BankSummary, pictures: Sequence[Path]) -> None:
    columns = ("class", "boxes", "images", "hidden boxes", "recall %", "precision %")
    rows = [_cells(entry) for entry in (*summary.per_class, summary.total)]
    console.show(console.table(f"Teacher predictions on {summary.images:,} images of step {bank.step}", columns, rows))
    largest = max(summary.histogram) or 1
    bins = [
        (f"{low / 10:.1f}–{low / 10 + 0.1:.1f}", "█" * round(_BAR_LENGTH * count / largest), f"{count:,}")
        for low, count in enumerate(summary.histogram)
    ]
    console.show(console.table("Boxes by score", ("score", "", "boxes"), bins, text_columns=2))
    known, size = len(bank.teacher.bank) - bank.num_new, bank.path.stat().st_size
    console.note(f"Ran on {bank.num_new:,} images, {known:,} were in the bank; {size / 1e6:.1f} MB")
    if pictures:
        console.note(f"Drew {len(pictures)} of them in {pictures[0].parent}")
    console.show(str(bank.path))


def _cells(entry: ClassKnowledge) -> tuple[str, ...]:
    hidden = "–" if entry.hidden_boxes is None else f"{entry.hidden_boxes:,}"
    return (
        entry.name,
        f"{entry.answers:,}",
        f"{entry.images:,}",
        hidden,
        console.percent(entry.recall),
        console.percent(entry.precision),
    )
