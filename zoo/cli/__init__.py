"""The command line: words in, calls of the public functions, tables out."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, NoReturn

import typer
from rich.console import Console

import zoo
from zoo.cli import artifacts, evaluation, language, models, prediction, quiet, search, training
from zoo.errors import ZooError, shown

WITHOUT_TENSORFLOW = ("list", "info", "report", "serve")

app = typer.Typer(
    name="zoo",
    help="Classic neural networks: list, train, fine-tune, export, verify and serve them by name.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("list")(models.list_models)
app.command()(models.info)
app.command()(training.train)
app.command()(training.read)
app.command()(training.fine_tune)
app.command()(search.tune)
app.command()(evaluation.evaluate)
app.command()(evaluation.attack)
app.command()(training.ensemble)
app.command()(training.reproduce)
app.command()(prediction.predict)
app.command()(prediction.embed)
app.command()(prediction.segment)
app.command()(prediction.sample)
app.command()(language.generate)
app.command()(language.score)
app.command()(artifacts.export)
app.command()(artifacts.verify)
app.command()(artifacts.serve)
app.command()(artifacts.report)


def _version(asked: bool) -> None:
    if asked:
        print(f"zoo {zoo.__version__}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """These options come before a command: `zoo --debug train ...`."""
    if context.invoked_subcommand not in WITHOUT_TENSORFLOW and "--help" not in sys.argv and not debug:
        quiet.import_tensorflow()


STOPPED = {130: "the keyboard", 143: "SIGTERM"}


def _terminate(number: int, frame: object) -> NoReturn:
    """SIGTERM ends a command as the keyboard does: what it has saved stays, what is half-written goes."""
    sys.exit(143)


def _stopped(code: int) -> NoReturn:
    print(f"stopped by {STOPPED[code]}: a training resumes when its command is repeated", file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """Run the command line. A `ZooError` is printed in one line, and the exit code is 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        app(prog_name="zoo")  # also for `python -m zoo`
    except ZooError as error:
        if "--debug" in sys.argv:
            raise
        line = shown(" ".join(str(error).split()))
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"error: {line}", style="red")
        sys.exit(2)
    except KeyboardInterrupt:
        _stopped(130)
    except SystemExit as stop:  # into which Typer turns a stop by the keyboard
        if stop.code in STOPPED:
            _stopped(int(stop.code))
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
