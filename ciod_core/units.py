"""Numbers as people read them."""

from __future__ import annotations


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as percent, `–` where there is none."""
    return "–" if value is None else f"{100 * value:z.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds as `42 s`, `3:05` or `1:02:03`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
