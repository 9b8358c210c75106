"""Commands on exported directories."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from etils import epy

import zoo
from zoo import artifacts
from zoo import report as results
from zoo.cli import quiet
from zoo.cli.options import Averaged, Several, Storage, words
from zoo.errors import ZooError

with epy.lazy_imports():
    from zoo.serving import server


def export(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="A run's directory; the directories of runs with several seeds, of which the best on validation is "
            "exported with the scores of all; or NAME.TAG or an exported directory, for a new graph or another format."
        ),
    ],
    path: Annotated[Path, typer.Argument(help="FOLDER/NAME.TAG, or a file for the other formats.")],
    format: Annotated[str, typer.Option(help="tensorflow, onnx, litert or keras.")] = "tensorflow",
    storage: Storage = None,
    tta: Averaged = "",
    features: Annotated[
        str, typer.Option(help="Layers, with commas, whose outputs a signature `features` of a classifier returns.")
    ] = "",
) -> None:
    """Export a run, or trained weights again, and verify that the export computes the same numbers."""
    are_runs = [Path(source, "run.json").exists() for source in sources]
    if len(sources) > 1 and not all(are_runs):
        raise ZooError(f"{sources[are_runs.index(False)]} is not a run: several sources must be runs of one training")
    source = [zoo.load_run(source) for source in sources] if all(are_runs) else zoo.load(sources[0])
    print(
        zoo.export(
            source, path, format=format, storage=storage, tta=words(tta), features=words(features),  # type: ignore[arg-type]
        )
    )  # fmt: skip


def verify(sources: Several) -> None:
    """Verify artifacts: files, operations, weights, and the golden examples in a process with TensorFlow alone."""
    for result in zoo.verify(*sources):
        signatures = ", ".join(result["signatures"])
        print(f"{result['path']}: verified, largest difference {result['difference']:.1e}; signatures: {signatures}")


def serve(
    sources: Several,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8501,
) -> None:
    """Verify artifacts and serve them with TensorFlow Serving's REST API."""
    zoo.verify(*sources)
    served = {
        _served_name(source, path): path for source, path in zip(sources, map(artifacts.find, sources), strict=True)
    }
    if len(served) < len(sources):
        raise ZooError("two of the artifacts have the same name: give one of each name")
    server.serve(served, host=host, port=port)


def _served_name(source: str, path: Path) -> str:
    """The name that was typed, or that of the exported directory that a path means."""
    return path.parent.name if os.sep in source or Path(source).is_dir() else source


def report(
    write: Annotated[
        Path | None,
        typer.Option(
            help="Put the table into this Markdown file, between its marks, and results.csv into the saved_models "
            "beside it or beside its folder, after all weights there are verified."
        ),
    ] = None,
) -> None:
    """Print the table of all models: reported and measured scores, size and latency."""
    if write is None:
        print(results.table())
    else:
        quiet.import_tensorflow()
        results.write(write)
