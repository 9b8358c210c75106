"""Requests of one signature computed together: one call of the graph for those that came while it computed."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from etils import epy

from zoo.errors import ZooError, graph_error
from zoo.serving.limits import Limits

with epy.lazy_imports():
    import fastapi
    import tensorflow as tf

MOST_NUMBERS = 2**20  # in the inputs that are computed at once: beyond, requests gain nothing from one another

Arrays = Mapping[str, np.ndarray]  # by the names of a signature's inputs or outputs; texts as bytes


class _Job(NamedTuple):
    inputs: Arrays
    answer: asyncio.Future  # cancelled where nobody waits for it any more
    rows: int
    numbers: int  # in a row; of texts the bytes of the longest
    shapes: tuple  # of the inputs without their first axis


class Signature:
    """A serving signature that many clients call at once, in a thread of its own.

    Args:
        name: for error messages.
        function: a `tf.function` with an `input_signature`, which returns tensors by name.

    Attributes:
        inputs, outputs: the `TensorSpec` of each, by name.
        busy_since: when the call in progress began, by `time.monotonic`; None between calls.
    """

    def __init__(self, name: str, function: Any, limits: Limits) -> None:
        concrete = function.get_concrete_function()
        self.name, self.limits = name, limits
        self.inputs = {spec.name: spec for spec in function.input_signature}
        self.outputs = {key: tf.TensorSpec.from_tensor(value) for key, value in concrete.structured_outputs.items()}
        self.busy_since: float | None = None
        self._function = function
        self._waiting: collections.deque[_Job] = collections.deque()
        self._worker: asyncio.Task | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        has_texts = any(spec.dtype == tf.string for spec in self.inputs.values())
        self._joins = all(
            spec.shape.rank and spec.shape[0] is None for spec in (*self.inputs.values(), *self.outputs.values())
        ) and not (has_texts and any(None in spec.shape[1:] for spec in self.outputs.values()))

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    async def __call__(self, inputs: Arrays) -> Arrays:
        """The outputs for inputs of the types and shapes of `self.inputs`, each with a row for each row of the inputs.

        Raises:
            ZooError: where the graph refuses the inputs.
            HTTPException: with status 503 where too many requests wait.
        """
        if len(self._waiting) >= self.limits.queue:
            raise fastapi.HTTPException(
                503, f"the queue is full ({len(self._waiting)} waiting): try again", {"Retry-After": "1"}
            )
        job = _job(inputs, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await job.answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                if self._joins and self.limits.wait:
                    await asyncio.sleep(self.limits.wait)
                if not (jobs := self._next()):
                    continue
                self.busy_since = time.monotonic()
                answers = await loop.run_in_executor(self._thread, self._compute, jobs)
                self.busy_since = None
                for job, answer in zip(jobs, answers, strict=True):
                    if job.answer.done():
                        continue
                    if isinstance(answer, Exception):
                        job.answer.set_exception(answer)
                    else:
                        job.answer.set_result(answer)
        finally:
            self._worker = None

    def _next(self) -> list[_Job]:
        """The first of those that wait and all after it that can be computed with it, without those that left."""
        jobs: list[_Job] = []
        rows = numbers = 0
        while self._waiting:
            job = self._waiting[0]
            if not job.answer.done():
                rows, numbers = rows + job.rows, max(numbers, job.numbers)
                fits = rows <= self.limits.joined and rows * numbers <= MOST_NUMBERS
                if jobs and not (self._joins and fits and job.rows and job.shapes == jobs[0].shapes):
                    break
                jobs.append(job)
            self._waiting.popleft()
        return jobs

    def _compute(self, jobs: Sequence[_Job]) -> list[Arrays | Exception]:
        """The outputs for each job; an error for one whose inputs the graph refuses."""
        if len(jobs) == 1:
            try:
                return [self._call(jobs[0].inputs)]
            except Exception as error:
                return [error]
        try:
            outputs = self._call({key: np.concatenate([job.inputs[key] for job in jobs]) for key in self.inputs})
        except ZooError:  # one job's fault: each for itself
            return [answer for job in jobs for answer in self._compute([job])]
        except Exception as error:
            return [error] * len(jobs)
        ends = np.cumsum([job.rows for job in jobs])
        parts = ((end - job.rows, end) for job, end in zip(jobs, ends, strict=True))
        return [{key: value[start:end] for key, value in outputs.items()} for start, end in parts]

    def _call(self, inputs: Arrays) -> Arrays:
        tensors = {key: tf.constant(value, self.inputs[key].dtype) for key, value in inputs.items()}
        try:
            return {key: value.numpy() for key, value in self._function(**tensors).items()}
        except (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError) as error:  # the latter by large sizes
            raise ZooError(f"signature {self.name!r}: {graph_error(error.message)}") from error


def _job(inputs: Arrays, answer: asyncio.Future) -> _Job:
    values = list(inputs.values())
    shapes = tuple((key, inputs[key].shape[1:]) for key in sorted(inputs))
    counts = {len(value) if value.ndim else 0 for value in values}
    rows = counts.pop() if len(counts) == 1 else 0  # 0: it has no rows, and is computed alone
    numbers = max(
        (max(map(len, value.flat), default=0) if value.dtype == object else value.size // max(rows, 1))
        for value in values
    )
    return _Job(inputs, answer, rows, numbers, shapes)
