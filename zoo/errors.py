"""What goes wrong, told in one line: what was wrong, with what, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(ValueError):
    """An error of the user's input or surroundings; the command line prints it in one line and exits with 2."""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> ZooError:
    """The error for a name that is not among the known ones, with the nearest of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}."
    return ZooError(f"unknown {kind} {name!r}: {advice}{' ' + hint if hint else ''}")
