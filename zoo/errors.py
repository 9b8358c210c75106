"""Errors and notes in one line: what was wrong, with what, and what to do."""

from __future__ import annotations

import difflib
import itertools
import re
import sys
from collections.abc import Iterable


class ZooError(ValueError):
    """An error in the user's input or environment; the command line prints it in one line and exits with code 2."""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> ZooError:
    """The error for a name that is not among the known ones; suggests those that look alike or contain it."""
    known = sorted(known)
    parts = [one for one in known if len(name) > 2 and name.lower() in one.lower()]
    parts.sort(key=lambda one: not one.lower().startswith(name.lower()))
    near = [*dict.fromkeys([*parts, *difflib.get_close_matches(name, known, n=3, cutoff=0.5)])]
    advice = f"did you mean {' or '.join(near[:4])}?" if near else f"known: {', '.join(known) or 'none'}."
    return ZooError(f"unknown {kind} {name!r}: {advice}{' ' + hint if hint else ''}")


CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """A text with escapes in place of the control characters, but for line feed and tab, and of the marks that turn the
    direction of writing: names in files shall not move a terminal's cursor or hide what it shows."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str = "", end: str = "\n", flush: bool = False) -> None:
    """Print a text as it may be shown."""
    print(shown(text), end=end, flush=flush)


def note(text: str) -> None:
    """Print, on standard error and in one line, what was done to the user's data beside what was asked."""
    print(f"note: {shown(' '.join(text.split()))}", file=sys.stderr, flush=True)


def listed(names: Iterable[str], most: int = 10) -> str:
    """The first names, and the number of those that follow."""
    names = [*names]
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")


def graph_error(message: str) -> str:
    """The cause in a message of TensorFlow, without its trace: the line before the first node, or else the first one,
    and of a failed assertion its words alone."""
    lines = message.rpartition("<stack traces unavailable>")[2].strip().splitlines() or ["no message"]
    before = [line for line, node in itertools.pairwise(lines) if node.lstrip().startswith("[[{{node")]
    cause = next((line for line in lines if "assertion failed" in line), (before or lines)[0])
    cause = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", cause).strip()
    return re.sub(r"^assertion failed: \[(.*)\]$", r"\1", cause)
