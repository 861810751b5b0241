"""The `ciod` command: one line per subcommand. Importing this module must stay quick and never import torch."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ciod_cli.commands import (
    check,
    compare,
    consolidate,
    demo,
    distill,
    distill_into,
    evaluate,
    export,
    import_weights,
    predict,
    report,
    reproduce,
    run,
    settings,
    split,
    status,
    train_step,
)
from ciod_cli.guard import SIGNALED, guarded, usage_errors_in_one_line
from ciod_cli.launch import on_devices
from ciod_cli.settings import SettingsCommand
from ciod_core.runtime.interruption import Interruption, interruptible


class Commands(TyperGroup):
    """All commands; whatever is wrong with how one is called is said in one line where no terminal shows a panel."""

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        with usage_errors_in_one_line():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: Any) -> Any:
        with usage_errors_in_one_line():
            return super().invoke(ctx)


app = typer.Typer(
    name="ciod",
    cls=Commands,
    help="Class-incremental object detection: teach a detector new classes without the old training data.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from ciod_core import __version__

        typer.echo(f"ciod {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command("check", cls=SettingsCommand)(guarded(check.check))
app.command("split", cls=SettingsCommand)(guarded(split.split))
app.command("train-step", cls=SettingsCommand)(guarded(on_devices(train_step.train_step)))
app.command("distill", cls=distill.DistillCommand)(guarded(on_devices(distill.distill)))
app.command("distill-into", cls=SettingsCommand)(guarded(on_devices(distill_into.distill_into)))
app.command("consolidate", cls=SettingsCommand)(guarded(on_devices(consolidate.consolidate)))
app.command("run", cls=SettingsCommand)(guarded(run.run))
app.command("reproduce", cls=SettingsCommand)(guarded(reproduce.reproduce))
app.command("evaluate", cls=SettingsCommand)(guarded(on_devices(evaluate.evaluate)))
app.command("eval", hidden=True, cls=SettingsCommand)(guarded(on_devices(evaluate.evaluate)))
app.command("compare", cls=SettingsCommand)(guarded(compare.compare))
app.command("predict", cls=SettingsCommand)(guarded(on_devices(predict.predict)))
app.command("import", cls=SettingsCommand)(guarded(import_weights.import_weights))
app.command("export", cls=SettingsCommand)(guarded(export.export))
app.command("status", cls=SettingsCommand)(guarded(status.status))
app.command("report", cls=SettingsCommand)(guarded(report.report))
app.command("settings", cls=SettingsCommand)(guarded(settings.settings))
app.command("demo", cls=SettingsCommand)(guarded(demo.demo))


def main() -> None:
    """Run the command line; always ends in SystemExit with the documented exit code."""
    # Imported modules live to the end; collecting garbage among them again and again would take a tenth of a short run.
    gc.set_threshold(50_000, 20, 20)
    for name in ("stdout", "stderr"):
        # Closed by whoever started the command (`>&-`): what is printed is lost, what the command does is not.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show Ω or a class name gets a '?' instead of a crash.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    try:
        with interruptible():
            app()
    except KeyboardInterrupt as error:
        # Before a command has begun, or after it has ended: commands say themselves that they were interrupted.
        sys.exit(SIGNALED + (error.number if isinstance(error, Interruption) else signal.SIGINT))
