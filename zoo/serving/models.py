"""The artifacts that are served: loaded, found by name and version, and replaced by their new versions."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo import artifacts
from zoo.artifacts.rebuilding import rebuild
from zoo.data.decoding import IMAGE_FORMATS, UNREADABLE, Unusable, pixel_count
from zoo.errors import ZooError, listed, note, unknown
from zoo.serving import values
from zoo.serving.batching import Arrays, Signature
from zoo.serving.limits import Limits

with epy.lazy_imports():
    import fastapi

FILES, PIXELS = "encoded_images", "serving_default"  # the signatures of image files, and of the images in them
SMALL_BODY = 2**16  # bytes; a larger request is read in a thread
SMALL_IMAGES = 2**20  # pixels in the image files of a request; the same


class Served:
    """One version of a model: its signatures, traced anew from the registry and the weights.

    Args:
        signatures: by name, each a `tf.function` with an `input_signature`.
        task: what reads its image files and names its classes; None for signatures of no artifact.
    """

    def __init__(self, version: str, signatures: Mapping[str, Any], limits: Limits, task: Any = None) -> None:
        self.version, self.task, self.limits = version, task, limits
        self.signatures = {name: Signature(name, signatures[name], limits) for name in sorted(signatures)}
        self.classes = task.classes if task else ()
        self._large = asyncio.Semaphore(1)  # the memory of one large request at a time,
        self._reader = ThreadPoolExecutor(1)  # also where its client leaves while it is read

    @property
    def reads_files(self) -> bool:
        """Whether the server reads image files for it, of more formats than the graph alone."""
        return self.task is not None and FILES in self.signatures

    @property
    def waiting(self) -> int:
        """Requests that wait for one of its signatures."""
        return sum(signature.waiting for signature in self.signatures.values())

    @property
    def is_stuck(self) -> bool:
        """Whether a call of a signature takes longer than a request may."""
        began = [signature.busy_since for signature in self.signatures.values() if signature.busy_since is not None]
        return bool(began) and time.monotonic() - min(began) > self.limits.seconds

    async def predict(self, body: bytes) -> bytes:
        """The answer to a predict request.

        Raises:
            ZooError: for a bad request.
            HTTPException: for one beyond a limit.
        """
        if len(body) <= SMALL_BODY:
            request = values.read(body, self.signatures, self.limits)
            if self._pixels(request) <= SMALL_IMAGES:
                return values.write(request, await self._outputs(request, self._images(request)))
        async with self._large:
            request, images = await asyncio.get_running_loop().run_in_executor(self._reader, self._read, body)
            outputs = await self._outputs(request, images)
            return await asyncio.to_thread(values.write, request, outputs)

    def _read(self, body: bytes) -> tuple[values.Request, list[np.ndarray] | None]:
        request = values.read(body, self.signatures, self.limits)
        self._pixels(request)
        return request, self._images(request)

    def _pixels(self, request: values.Request) -> int:
        """The pixels of a request's image files, by their headers.

        Raises:
            HTTPException: with status 413 for too many.
        """
        if request.is_empty or request.signature != FILES or not self.reads_files:
            return 0
        pixels = sum(map(pixel_count, request.inputs["encoded"]))
        if pixels > self.limits.pixels:
            raise fastapi.HTTPException(
                413, f"the images have {pixels:,} pixels: send at most {self.limits.pixels:,} at once"
            )
        return pixels

    def _images(self, request: values.Request) -> list[np.ndarray] | None:
        """The images [H, W, C] in a request's files, read as in training; None for a request without files.

        Raises:
            ZooError: for files that cannot be read, all at once.
        """
        if request.is_empty or request.signature != FILES or not self.reads_files:
            return None
        images, faults = [], []
        for item in self.task.items(list(request.inputs["encoded"])):
            try:
                images.append(item.read()[0])
            except Unusable as error:
                faults.append(f"{item.name} ({error})")
            except Exception:  # for a broken file Pillow raises a dozen kinds of errors
                faults.append(f"{item.name} ({UNREADABLE})")
        if faults:
            count = len(request.inputs["encoded"])
            raise ZooError(f"{listed(faults)} of {count} cannot be read: send {', '.join(IMAGE_FORMATS)} files")
        return images

    async def _outputs(self, request: values.Request, images: list[np.ndarray] | None) -> Arrays:
        if request.is_empty:
            return {}
        if images is None:
            return await self.signatures[request.signature](request.inputs)
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, image in enumerate(images):
            groups.setdefault(image.shape, []).append(row)
        batches = [{"images": np.stack([images[row] for row in rows])} for rows in groups.values()]
        parts = [await self.signatures[PIXELS](batch) for batch in batches]  # one after the other: they share a queue
        order = np.argsort(np.concatenate(list(groups.values())))
        return {key: np.concatenate([part[key] for part in parts])[order] for key in parts[0]}


@dataclasses.dataclass
class Source:
    """What the command line names: a name or a folder, whose newest version is served, or one version's directory."""

    given: str
    path: Path
    served: Served
    failed: Path | None = None  # a newer version that cannot be served


class Catalog(Mapping[str, Mapping[str, Served]]):
    """What is served: by name and version.

    Raises:
        ZooError: for an artifact that is missing, damaged, or given twice.
    """

    def __init__(self, sources: Sequence[str], limits: Limits) -> None:
        self.limits = limits
        self._sources = [Source(given, *_load(given, artifacts.find(given), limits)) for given in sources]
        self._served: dict[str, dict[str, Served]] = {}
        self._index()
        if sum(map(len, self._served.values())) < len(sources):
            raise ZooError("two of the artifacts are the same version: give each once")

    def __getitem__(self, name: str) -> Mapping[str, Served]:
        return self._served[name]

    def __iter__(self) -> Any:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)

    def refresh(self) -> None:
        """Serve the newest version of each source; a version that cannot be served is reported, and the one before it
        stays. Requests in progress are answered by the version that they began with."""
        for source in self._sources:
            path = source.path
            try:
                path = artifacts.find(source.given)
                if path != source.path:
                    source.path, source.served = _load(source.given, path, self.limits)
                    note(f"{served_name(source.given, path)}: version {source.served.version} is served")
                    self._index()
                    gc.collect()  # graphs refer to themselves
            except Exception as error:  # whatever it is, the version before it stays
                if path != source.failed:
                    note(f"the version in {path} is not served: {error}")
                source.failed = path

    def _index(self) -> None:
        served: dict[str, dict[str, Served]] = {}
        for source in self._sources:
            served.setdefault(served_name(source.given, source.path), {})[source.served.version] = source.served
        self._served = served


def _load(given: str, path: Path, limits: Limits) -> tuple[Path, Served]:
    rebuilt = rebuild(artifacts.open_artifact(path))
    version = path.name if path.name.isdecimal() else "1"
    return path, Served(version, rebuilt.signatures, limits, rebuilt.task)


def served_name(source: str, path: Path) -> str:
    """The name that was typed, or that of the exported directory that a path means."""
    return path.parent.name if os.sep in source or Path(source).is_dir() else source


def find(catalog: Mapping[str, Mapping[str, Served]], name: str, version: str | None) -> Served:
    """The version of a model, the newest one by default.

    Raises:
        HTTPException: with status 404 where there is none.
    """
    if name not in catalog:
        raise fastapi.HTTPException(404, str(unknown("model", name[:100], catalog)))
    versions = catalog[name]
    if version is None:
        return versions[max(versions, key=int)]
    if version not in versions:
        raise fastapi.HTTPException(404, str(unknown(f"version of {name}", version[:100], versions)))
    return versions[version]
