"""Commands on exported directories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from etils import epy

import zoo
from zoo import report as results
from zoo.cli import quiet
from zoo.cli.options import Averaged, Several, Storage, words
from zoo.errors import ZooError, say
from zoo.serving.limits import Limits

with epy.lazy_imports():
    from zoo.serving import server

LIMITS = Limits()


def _limit(help: str, most: float | None = None) -> Any:
    return typer.Option(help=help, min=1, max=most, rich_help_panel="Limits")


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
    version = zoo.export(
        source, path, format=format, storage=storage, tta=words(tta), features=words(features),  # type: ignore[arg-type]
    )  # fmt: skip
    say(str(version))


def verify(sources: Several) -> None:
    """Verify artifacts: files, operations and weights; then the stored graph, in a process with limits, against the
    network rebuilt from the weights, on random inputs and on the golden examples."""
    for result in zoo.verify(*sources):
        signatures = ", ".join(result["signatures"])
        say(f"{result['path']}: verified, largest difference {result['difference']:.1e}; signatures: {signatures}")


def serve(
    sources: Several,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8501,
    cors: Annotated[
        list[str] | None, typer.Option(help="Origin of web pages that may read the answers, * for all; repeatable.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name that the Host header may have; repeatable. The local ones on a local address, else all."
        ),
    ] = None,
    poll: Annotated[float, typer.Option(min=0, help="Seconds between looks for new versions; 0 for none.")] = 10.0,
    access_log: Annotated[bool, typer.Option(help="Log each request.")] = True,
    max_body: Annotated[int, _limit("Bytes of a request's body.")] = LIMITS.body,
    max_pixels: Annotated[int, _limit("Pixels of a request's image files.")] = LIMITS.pixels,
    max_batch: Annotated[int, _limit("Instances of a request.")] = LIMITS.batch,
    max_count: Annotated[int, _limit("Images that a request draws.")] = LIMITS.count,
    max_length: Annotated[int, _limit("Characters that a request writes to each text.")] = LIMITS.length,
    max_queue: Annotated[int, _limit("Requests that wait for one signature.")] = LIMITS.queue,
    max_connections: Annotated[int, _limit("Open connections; others wait.")] = LIMITS.connections,
    timeout: Annotated[float, _limit("Seconds for a request's body, and for its answer.")] = LIMITS.seconds,
    header_timeout: Annotated[int, _limit("Seconds for a request's header.", 60)] = LIMITS.header_seconds,
    shutdown_timeout: Annotated[
        int, _limit("Seconds for the requests in progress after SIGTERM.", 1800)
    ] = LIMITS.shutdown_seconds,
) -> None:
    """Serve artifacts with TensorFlow Serving's REST API. The newest version of a name or folder is served, and
    replaced by newer ones."""
    limits = Limits(
        body=max_body,
        pixels=max_pixels,
        batch=max_batch,
        count=max_count,
        length=max_length,
        queue=max_queue,
        connections=max_connections,
        seconds=timeout,
        header_seconds=header_timeout,
        shutdown_seconds=shutdown_timeout,
    )
    options = server.Options(tuple(cors or ()), tuple(allowed_host or ()), poll, access_log)
    server.serve(sources, host, port, limits, options)


def report(
    write: Annotated[
        Path | None,
        typer.Option(
            help="Put the table into this Markdown file, between its marks, and published.json and results.csv into "
            "the saved_models beside it or beside its folder, after all weights there are verified."
        ),
    ] = None,
) -> None:
    """Print the table of all models: reported and measured scores, size and latency."""
    if write is None:
        say(results.table())
    else:
        quiet.import_tensorflow()
        results.write(write)
