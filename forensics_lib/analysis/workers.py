"""Processes that run `digest_stream`: threads alone would wait for one another's interpreter lock.

They are plain children of this process that are sent jobs and send back results. Unlike the pools of `multiprocessing`
they never run the caller's own script again, so a script or notebook needs no guard around its main part.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import PurePath
from types import TracebackType
from typing import IO

from forensics_lib.analysis.digests import StreamDigests, digest_stream
from forensics_lib.analysis.inventory import TarStream
from forensics_lib.sources.base import SliceSource, Source
from forensics_lib.sources.file import FileSource

__all__ = ["Seats", "can_move", "serve"]

Tick = Callable[[int], None]
_START = "import sys; sys.path[:] = {path!r}; from forensics_lib.analysis.workers import serve; serve()"
_TICKS = 4 << 20
"""Bytes between two reports of progress."""


def can_move(source: Source) -> bool:
    """Whether another process reads these bytes as cheaply: from a file, not from what this process decompressed."""
    while isinstance(source, SliceSource):
        source = source.parent
    return isinstance(source, FileSource)


class Seats:
    """Places to work at: this process, and others beside it. To be used as a context manager.

    Where no process can be started, or one dies, its jobs are done here.
    """

    def __init__(self, count: int) -> None:
        """Start `count` - 1 processes beside this one."""
        self._workers = [worker for worker in (_start() for _ in range(count - 1)) if worker is not None]
        self._free: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        for seat in (None, *self._workers):
            self._free.put(seat)
        self.count = 1 + len(self._workers)

    def run(self, job: TarStream, wanted: Sequence[Sequence[str]], tick: Tick | None) -> StreamDigests:
        """`digest_stream` at a free seat; to be called from as many threads as there are seats."""
        worker = self._free.get()
        try:
            if worker is not None:
                found = _ask(worker, job, wanted, tick)
                if found is not None:
                    return found
                worker = None  # from now on a second one here
            return digest_stream(job, *wanted, tick=tick)
        finally:
            self._free.put(worker)

    def __enter__(self) -> Seats:
        """The seats."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes; what they are at is given up."""
        for worker in self._workers:
            worker.kill()
            worker.communicate()


def _start() -> subprocess.Popen[bytes] | None:
    """A process that waits for jobs; None where this interpreter is not one that can be started again."""
    name = PurePath(sys.executable or "").name.lower()
    if getattr(sys, "frozen", False) or not name.startswith(("python", "pypy")):
        return None
    code = _START.format(path=sys.path)
    try:
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError:
        return None


def _ask(
    worker: subprocess.Popen[bytes], job: TarStream, wanted: Sequence[Sequence[str]], tick: Tick | None
) -> StreamDigests | None:
    """What the process finds; None when it, or the way to it, failed."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    told = 0
    try:
        worker.stdin.write(pickle.dumps((job, wanted)))
        worker.stdin.flush()
        while not isinstance(answer := pickle.load(worker.stdout), StreamDigests):
            if not isinstance(answer, int):
                raise answer
            told += answer
            if tick is not None:
                tick(answer)
    except (OSError, EOFError, pickle.PickleError, AttributeError, TypeError):
        worker.kill()
        if tick is not None:
            tick(-told)
        return None
    return answer


def serve() -> None:
    """Do jobs that come from standard input until it ends. Only `Seats` calls it, in a process of its own."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interruption is the parent's, which then ends this process
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed must not come between answers
    while True:
        try:
            job, wanted = pickle.load(jobs)
        except EOFError:
            return
        report = _Report(answers)
        answer: StreamDigests | Exception
        try:
            answer = digest_stream(job, *wanted, tick=report.add)
        except Exception as error:
            answer = error
        report.send()
        _send(answers, answer)


class _Report:
    """Tells of progress now and then."""

    def __init__(self, answers: IO[bytes]) -> None:
        self._answers = answers
        self._held = 0

    def add(self, count: int) -> None:
        self._held += count
        if self._held >= _TICKS:
            self.send()

    def send(self) -> None:
        _send(self._answers, self._held)
        self._held = 0


def _send(answers: IO[bytes], answer: object) -> None:
    answers.write(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
    answers.flush()
