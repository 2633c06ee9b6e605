"""Sizes and times as a line of log says them."""

from __future__ import annotations


def size(count: float) -> str:
    """Return bytes in the unit that fits: 512 B, 3.4 MiB, 20 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if count >= 100 or unit == "B" else f"{count:.1f} {unit}"


def printable(text: str) -> str:
    """Return text with what is no character, or would end a line, escaped."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def share(part: float) -> str:
    """Return a share as percent: 95.3 %."""
    return f"{100 * part:.1f} %"


def duration(seconds: float) -> str:
    """Return a time in its two largest units: 3 h 20 min."""
    left = max(0, round(seconds))
    words: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not words):
            words.append(f"{count} {unit}")
        elif words:
            break
    return " ".join(words[:2])


def directories(count: int) -> str:
    """Return a number of directories: '1 directory'."""
    return "1 directory" if count == 1 else f"{count} directories"
