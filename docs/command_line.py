"""Write docs/command-line.md from the commands of `zoo`: `python docs/command_line.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from zoo.cli import app

PAGE = Path(__file__).with_name("command-line.md")
TYPERS_OWN = ("help", "install_completion", "show_completion")  # their words may change with its release
INTRODUCTION = """
`zoo COMMAND --help` shows the same in the terminal. `zoo --install-completion` installs completion for your shell.
"""


def page() -> str:
    """The help of each command in Markdown, without what depends on the terminal or on typer's release."""
    group = typer.main.get_command(app)
    parts = ["# Command line", "<!-- written by python docs/command_line.py -->", group.help, INTRODUCTION]
    parts += [_usage("zoo [OPTIONS] COMMAND"), _options(group)]
    for name, command in _commands(group, "zoo"):
        arguments = [_metavar(one) for one in command.params if one.param_type_name == "argument"]
        parts += [f"## `{name}`", command.help, _usage(" ".join([name, "[OPTIONS]", *arguments])), _options(command)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _commands(group: Any, prefix: str) -> list[tuple[str, Any]]:
    """All visible commands, those of groups too, with the words that call them."""
    found: list[tuple[str, Any]] = []
    for name, command in group.commands.items():
        words = f"{prefix} {name}"
        if hasattr(command, "commands"):
            found += _commands(command, words)
        elif not command.hidden:
            found.append((words, command))
    return found


def _usage(line: str) -> str:
    return f"```text\n{line}\n```"


def _metavar(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper() + ("..." if argument.nargs != 1 else "")
    return name if argument.required else f"[{name}]"


def _options(command: Any) -> str:
    """The table of a command's arguments and options; empty where it has none."""
    rows = []
    for one in command.params:
        if getattr(one, "hidden", False) or one.name in TYPERS_OWN:
            continue
        if one.param_type_name == "argument":
            words = _metavar(one)
        else:
            value = "" if one.is_flag else " " + (one.metavar or max(one.opts, key=len).strip("-").upper())
            words = ", ".join(f"{word}{value}" for word in (*one.opts, *one.secondary_opts))
        default = (
            one.default if isinstance(one.default, str | int | float | Path) and one.default is not False else None
        )
        notes = ["Required."] if one.required else [f"Default: `{default}`."] if default not in (None, "") else []
        text = " ".join([*(one.help or "").split(), *notes]).replace("|", "\\|")
        text = re.sub(r"(`[^`]*`)|\*", lambda found: found[1] or "\\*", text)
        rows.append(f"| `{words}` | {text} |")
    return "\n".join(["| argument or option | meaning |", "|---|---|", *rows]) if rows else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
