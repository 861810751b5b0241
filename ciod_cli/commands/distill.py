"""`ciod distill`: ask a teacher about the next step's images once, and keep its knowledge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ciod_cli import console
from ciod_cli.options import (
    TRAINING_FLAGS,
    ConfigOption,
    DeviceOption,
    ExperimentOption,
    JsonOption,
    OverwriteOption,
    SeedOption,
    SetOption,
)
from ciod_cli.student import Student, train_student
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciod_core.teachers.distil import Distilled
    from ciod_core.teachers.summary import ClassKnowledge

FLAG_NAMES = TRAINING_FLAGS | {"model.name": "--into", "training.seed": "--seed"}
_BAR_LENGTH = 40


def distill(
    experiment: ExperimentOption = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            "--teacher",
            metavar="FILE",
            help="Weights (or run) to ask, or any detector: COCO results (.json), model (.onnx). "
            "Default: the only finished chain.",
        ),
    ] = None,
    step: Annotated[
        int | None, typer.Option("--step", help="Results and models: about whose images. Default: 2.")
    ] = None,
    teacher_classes: Annotated[
        Path | None,
        typer.Option(
            "--teacher-classes",
            metavar="FILE",
            help="Results and models that do not name their classes: COCO file, or text with a class per line.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The bank. Default: stepN.knowledge.safetensors.")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average the answers with those for mirrored images.")] = False,
    scales: Annotated[
        str | None, typer.Option("--scales", help="Average over further sizes, as multiples: 0.75,1.25.")
    ] = None,
    draw: Annotated[
        int, typer.Option("--draw", min=0, help="Draw what is known of so many images, as PNG beside the bank.")
    ] = 0,
    into: Annotated[
        str | None,
        typer.Option(
            "--into", metavar="MODEL", help="Train this model, for example yolox-nano, from the knowledge alone."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="FOLDER", help="--into: unlabelled images. Default: the step's.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="--into: the run. Default: step1-yolox-nano, …")] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", help="--into. Default: the teacher's.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="--into. Default: 12.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="--into. Default: 16.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="--into: learning rate. Default: 0.001.")] = None,
    seed: SeedOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="--into: continue an interrupted run.")] = False,
    workers: Annotated[int | None, typer.Option("--workers", help="Loader processes. Default: 2.")] = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Ask a teacher about the next step's images once, and keep what is worth teaching in a bank.

    With --into, a student of another size learns from that bank alone, without a single label.
    """
    from ciod_core.config.resolve import resolve_config
    from ciod_core.experiment.folder import Experiment

    student = Student(into, images, name, image_size, epochs, batch_size, lr, seed, resume)
    student.check()
    if draw and student.model is not None:
        raise ConfigError("--draw: it shows a bank; leave out --into, or --draw")
    flags = {**student.flags, "data.workers": workers, "training.device": device}
    resolved = resolve_config(config, flags, settings or (), flag_names=FLAG_NAMES)
    multiples = _multiples(scales)
    found = Experiment.find(experiment, teacher)

    from ciod_cli.progress import progress_counter
    from ciod_core.teachers.asking import Asking

    asking = Asking(teacher, step, teacher_classes, images, flip, multiples)
    if student.model is not None:
        train_student(found, resolved, student, asking, out, overwrite=overwrite, json=json)
        return

    from ciod_core.teachers.distil import distil
    from ciod_core.teachers.samples import draw_samples

    with progress_counter("Asking the teacher", "images", at_once=False) as on_images:
        distilled = distil(found, resolved, asking, out=out, overwrite=overwrite, on_images=on_images)
    for note in distilled.notes:
        console.note(note)
    pictures = draw_samples(distilled, draw) if draw else ()
    if json:
        console.show_json(
            {
                "bank": str(distilled.bank.path),
                "bytes": distilled.bank.path.stat().st_size,
                "step": distilled.step,
                "asked": distilled.num_asked,
                "notes": distilled.notes,
                "description": distilled.bank.info.model_dump(mode="json"),
                "summary": distilled.summary.model_dump(mode="json"),
                "pictures": [str(picture) for picture in pictures],
            }
        )
        return
    _show(distilled, pictures)


def _multiples(text: str | None) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"--scales {text}: not numbers with commas between them, such as 0.75,1.25") from None
    if any(not 0.1 <= value <= 4 for value in values):
        raise ConfigError(f"--scales {text}: a multiple of the image size lies between 0.1 and 4")
    return values


def _show(distilled: Distilled, pictures: Sequence[Path]) -> None:
    summary, size = distilled.summary, distilled.bank.path.stat().st_size
    columns = ("class", "answers", "images", "hidden boxes", "recall %", "precision %")
    rows = [_cells(entry) for entry in (*summary.per_class, summary.total)]
    console.show(console.table(f"Knowledge of {summary.images:,} images of step {distilled.step}", columns, rows))
    largest = max(summary.histogram) or 1
    bins = [
        (f"{low / 10:.1f}–{low / 10 + 0.1:.1f}", "█" * round(_BAR_LENGTH * count / largest), f"{count:,}")
        for low, count in enumerate(summary.histogram)
    ]
    console.show(console.table("Answers by score", ("score", "", "answers"), bins, text_columns=2))
    known = summary.images - distilled.num_asked
    console.note(f"Asked about {distilled.num_asked:,} images, {known:,} were known; {size / 1e6:.1f} MB")
    if pictures:
        console.note(f"Drew {len(pictures)} of them in {pictures[0].parent}")
    console.show(str(distilled.bank.path))


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
