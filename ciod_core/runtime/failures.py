"""What a user reads about an exception of any kind."""

from __future__ import annotations

import errno
import os
import re

from ciod_core.errors import CiodError
from ciod_core.runtime.memory import is_out_of_memory

_OS_REMEDIES = {
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "free some space and run the command again",
    errno.EACCES: "check the permissions of the file and its folder",
    errno.EPERM: "check the permissions of the file and its folder",
    errno.EROFS: "choose a folder that can be written",
}


def message_of(error: Exception) -> str:
    """What, where and what to do, in one line; of an error that nobody foresaw, its name and what it says."""
    if isinstance(error, CiodError):
        return _last_line(str(error))
    if is_out_of_memory(error):
        return (
            "out of memory; lower `data.workers`, `data.image_size`, or the batch size (`training.batch_size`, "
            "`evaluation.batch_size`)"
        )
    if _is_failed_compilation(error):
        # Behind a blank line follows how to see more of torch's insides.
        reason = _last_line(str(error).partition("\n\n")[0])
        return f"the network cannot be compiled here: {reason}; leave `training.compile` out"
    if isinstance(error, OSError) and error.strerror:
        remedy = _OS_REMEDIES.get(error.errno or 0)
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return f"{where}{error.strerror}" + (f"; {remedy}" if remedy else "")
    return f"unexpected {type(error).__name__}: {_last_line(str(error))}"


def is_foreseen(error: Exception) -> bool:
    """Whether a message says what to do about an error."""
    is_known = is_out_of_memory(error) or _is_failed_compilation(error)
    return isinstance(error, CiodError) or is_known or bool(getattr(error, "strerror", None))


def _is_failed_compilation(error: BaseException) -> bool:
    """True where torch could not compile a network, for example for want of a C++ compiler; needs no torch."""
    return any(kind.__module__.startswith(("torch._dynamo", "torch._inductor")) for kind in type(error).__mro__)


def _last_line(text: str) -> str:
    # A loader's worker process hands its exception on with a traceback before the message.
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or not any(line.startswith(("Traceback", "Original Traceback")) for line in lines):
        return " ".join(line.strip() for line in lines)
    return re.sub(r"^[\w.]+: ", "", lines[-1])
