"""Whatever goes wrong ends in one line on stderr and the documented exit code."""

from __future__ import annotations

import errno
import inspect
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ciod_cli.guard import guarded, message_of
from ciod_core.errors import CheckpointError, CiodError, ConfigError, DataError, ExportError
from tests.helpers.experiments import make_experiment


def run_failing(error: BaseException) -> int:
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        guarded(command)()
    return caught.value.exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CiodError("a"), 1),
        (ConfigError("a"), 2),
        (DataError("a"), 3),
        (CheckpointError("a"), 4),
        (ExportError("a"), 5),
        (KeyboardInterrupt(), 130),
        (ValueError("a"), 1),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1),
    ],
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_failing(error) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs signals of POSIX")
@pytest.mark.parametrize(
    ("name", "text"), [("SIGINT", "interrupted"), ("SIGTERM", "terminated"), ("SIGHUP", "hung up")]
)
def test_signals_end_a_command_alike(name: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)
    cleaned_up = []

    def command() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGTERM)  # as when a system shuts down
            cleaned_up.append(True)

    try:
        with pytest.raises(typer.Exit) as caught:
            guarded(command)()
    finally:
        assert signal.signal(number, before) is signal.SIG_DFL
    assert caught.value.exit_code == 128 + number and cleaned_up
    assert capsys.readouterr().err == f"error: {text}\n"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs signals of POSIX")
@pytest.mark.skipif(sys.platform == "win32", reason="raise_signal ends the process there")
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RuntimeError("trying to pop from empty mode stack"), 143, "error: terminated"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device"),
        (DataError("a.json: is empty"), 3, "error: a.json: is empty"),
    ],
)
def test_what_breaks_because_it_was_interrupted_is_not_told(
    error: Exception, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors that a user can do something about are."""

    @guarded
    def command() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise error

    with pytest.raises(typer.Exit) as exit_:
        command()
    assert exit_.value.exit_code == code
    assert line in capsys.readouterr().err


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert guarded(lambda: signal.raise_signal(signal.SIGHUP) or "done")() == "done"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_full_disk_names_the_file_and_the_remedy() -> None:
    message = message_of(OSError(errno.ENOSPC, "No space left on device", "/x/step1.safetensors"))
    assert message == "/x/step1.safetensors: No space left on device; free some space and run the command again"


def test_permission_denied() -> None:
    message = message_of(PermissionError(errno.EACCES, "Permission denied", b"/x"))
    assert message == "/x: Permission denied; check the permissions of the file and its folder"


def test_a_workers_exception_loses_its_traceback() -> None:
    wrapped = (
        "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "worker.py", line 1, in loop\nciod_core.errors.DataError: a.jpg: image file is missing\n'
    )
    assert message_of(DataError(wrapped)) == "a.jpg: image file is missing"


def test_several_lines_become_one() -> None:
    assert message_of(ConfigError("first\n  second\n")) == "first second"


def test_out_of_memory_says_what_helps() -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    on_cpu = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate …"
    for error in (
        OutOfMemoryError("CUDA out of memory. Tried to allocate …"),
        MemoryError(),
        RuntimeError(on_cpu),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ):
        assert message_of(error).startswith("out of memory; lower ")
        assert "`training.batch_size`" in message_of(error)


def test_a_failed_compilation_says_why_and_what_to_leave_out() -> None:
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._inductor.exc import InvalidCxxCompiler

    missing = InvalidCxxCompiler()
    wrapped = BackendCompilerFailed("inductor", missing, inspect.currentframe())
    verbose = InvalidCxxCompiler()
    verbose.args = (f"{missing}\n\nSet TORCHDYNAMO_VERBOSE=1 for the internal stack trace",)
    for error in (missing, wrapped, verbose):
        message = message_of(error)
        assert message.startswith("the network cannot be compiled here: ") and "No working C++ compiler" in message
        assert message.endswith("; leave `training.compile` out") and "VERBOSE" not in message
    assert "compile" not in message_of(RuntimeError("torch._dynamo"))


def test_traceback_only_on_demand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_failing(ZeroDivisionError("by zero"))
    quiet = capsys.readouterr().err
    assert quiet == "error: unexpected ZeroDivisionError: by zero; set CIOD_TRACEBACK=1 to see where it came from\n"
    monkeypatch.setenv("CIOD_TRACEBACK", "1")
    run_failing(ZeroDivisionError("by zero"))
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_typer_exits_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_failing(typer.Exit(7)) == 7
    assert capsys.readouterr().err == ""


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    make_experiment(tmp_path)
    command = [sys.executable, "-m", "ciod_cli", "status", str(tmp_path), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_stdout_on_a_full_disk(tmp_path: Path) -> None:
    make_experiment(tmp_path)
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "ciod_cli", "status", str(tmp_path)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == "error: No space left on device; free some space and run the command again\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize(
    ("arguments", "redirected", "code"),
    [
        ("status {0}", ">&-", 0),
        ("status {0}", ">&- 2>&-", 0),
        ("status {0}/nowhere", "2>&-", 2),
        ("status {0}/nowhere", "2>/dev/full", 2),
        ("--help", ">&-", 0),
    ],
)
def test_nobody_reads(arguments: str, redirected: str, code: int, tmp_path: Path) -> None:
    make_experiment(tmp_path)
    command = f"'{sys.executable}' -m ciod_cli {arguments.format(tmp_path)} {redirected}"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (code, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_help_that_cannot_be_printed() -> None:
    command = f"'{sys.executable}' -m ciod_cli --help >/dev/full"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "error: No space left on device; free some space and run the command again\n"


@pytest.mark.skipif(sys.platform == "win32", reason="raise_signal ends the process there")
def test_a_process_that_its_launcher_terminates_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")

    @guarded
    def command() -> None:
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(typer.Exit) as exit_:
        command()
    assert (exit_.value.exit_code, capsys.readouterr().err) == (128 + signal.SIGTERM, "")
