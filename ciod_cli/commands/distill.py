"""`ciod distill`: run a teacher once on the next step's images and save its selected predictions to a bank."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ciod_cli import console
from ciod_cli.options import (
    ConfigOption,
    DeviceOption,
    ExperimentOption,
    JsonOption,
    OverwriteOption,
    SetOption,
    WorkersOption,
)
from ciod_cli.settings import SettingsCommand, settings
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciod_core.teachers.report import BankSummary, ClassKnowledge, StepBank

_BAR_LENGTH = 40

TeacherOption = Annotated[
    Path | None,
    typer.Option(
        "--teacher",
        metavar="FILE",
        help="Weights (or run), or any detector: COCO results (.json), model (.onnx). Default: the only leaf run.",
    ),
]
StepOption = Annotated[
    int | None, typer.Option("--step", help="Results and models: step whose images they cover. Default: 2.")
]
TeacherClassesOption = Annotated[
    Path | None,
    typer.Option(
        "--teacher-classes",
        metavar="FILE",
        help="Results and models that do not name their classes: COCO file, or text with a class per line.",
    ),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="The bank. Default: stepN.knowledge.safetensors.")
]
FlipOption = Annotated[bool, typer.Option("--flip", help="Average predictions with those for mirrored images.")]
ScalesOption = Annotated[
    str | None, typer.Option("--scales", help="Average over further sizes, as multiples: 0.75,1.25.")
]


class DistillCommand(SettingsCommand):
    """Tells who still passes `--into`, with options that moved along, where it went."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(argument.partition("=")[0] == "--into" for argument in args):
            console.fail("--into: it is a command of its own now; run 'ciod distill-into MODEL' with the same options")
            raise typer.Exit(2)
        return super().parse_args(ctx, args)


def distill(
    ctx: typer.Context,
    experiment: ExperimentOption = None,
    teacher: TeacherOption = None,
    step: StepOption = None,
    teacher_classes: TeacherClassesOption = None,
    out: OutOption = None,
    flip: FlipOption = False,
    scales: ScalesOption = None,
    draw: Annotated[
        int, typer.Option("--draw", min=0, help="Number of sample images to draw, as PNG beside the bank.")
    ] = 0,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Run the teacher once on the next step's images and save its selected predictions to a bank."""
    from ciod_core.experiment.folder import Experiment

    resolved = settings(ctx)
    multiples = parse_scales(scales)
    found = Experiment.find(experiment, teacher)

    from ciod_cli.progress import progress_counter
    from ciod_core.teachers.distill import distill
    from ciod_core.teachers.pictures import draw_samples
    from ciod_core.teachers.report import summarize
    from ciod_core.teachers.sources import TeacherOptions

    options = TeacherOptions(teacher, step, teacher_classes, flip=flip, scales=multiples)
    with progress_counter("Running the teacher", "images", at_once=False) as on_images:
        bank = distill(found, resolved, options, out=out, overwrite=overwrite, on_images=on_images)
    for note in bank.notes:
        console.note(note)
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
            }
        )
        return
    _show(bank, summary, pictures)


def parse_scales(text: str | None) -> tuple[float, ...]:
    """The numbers of `--scales`.

    Raises:
        ConfigError: a part that is no number, or out of range.
    """
    try:
        values = tuple(float(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"`scales` {text}: not numbers with commas between them, such as 0.75,1.25") from None
    if any(not 0.1 <= value <= 4 for value in values):
        raise ConfigError(f"`scales` {text}: a multiple of the image size lies between 0.1 and 4")
    return values


def _show(bank: StepBank, summary: BankSummary, pictures: Sequence[Path]) -> None:
    columns = ("class", "boxes", "images", "hidden boxes", "recall %", "precision %")
    rows = [_cells(entry) for entry in (*summary.per_class, summary.total)]
    console.show(console.table(f"Knowledge of {summary.images:,} images of step {bank.step}", columns, rows))
    largest = max(summary.histogram) or 1
    bins = [
        (f"{low / 10:.1f}–{low / 10 + 0.1:.1f}", "█" * round(_BAR_LENGTH * count / largest), f"{count:,}")
        for low, count in enumerate(summary.histogram)
    ]
    console.show(console.table("Boxes by score", ("score", "", "boxes"), bins, text_columns=2))
    known, size = summary.images - bank.num_new, bank.path.stat().st_size
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
