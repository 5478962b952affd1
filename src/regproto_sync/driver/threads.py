"""Threads, as many as there are things to do at once: the core bounds those, so nothing ever queues for a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from regproto._model.messages import Input
from regproto_sync.driver.transport import Waiter


@attrs.frozen
class Crash:
    """A mistake of ours while a job was done: it goes to whoever runs the session."""

    id: int
    error: BaseException


LOOK_AGAIN_S: Final = 0.05
"""While threads end: whether what they are in can't be interrupted."""


class Job(Protocol):
    """Something that takes time, and ends with an input for the session."""

    @property
    def id(self) -> int:
        """The id of the output this is done for."""
        ...

    @property
    def is_stuck(self) -> bool:
        """True while it is in a call that can't be interrupted and holds nothing: not worth waiting for."""
        ...

    def work(self, waiter: Waiter) -> Input | None:
        """Does it; None: it was answered before."""
        ...

    def tell(self, answer: Input | Crash) -> None:
        """Hands the answer on."""
        ...


class Workers:
    """Threads that are started when all others are busy, and kept until `close`."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: list[_Worker] = []

    def start(self, job: Job) -> None:
        """Begins `job` now. Raises `OSError` or `RuntimeError` if the system gives us no more threads or files."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._threads.append(_Worker(self._jobs, self._rest))
        self._jobs.put(job)

    def _rest(self) -> None:
        with self._lock:
            self._idle += 1

    def close(self) -> None:
        """Ends all threads, and waits for them; those in a call that can't be interrupted end after it."""
        with self._lock:
            threads, self._threads, self._idle = self._threads, [], 0
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            # One that has not taken its job yet may be stuck in it a moment later.
            while thread.is_alive() and not thread.is_stuck:
                thread.join(LOOK_AGAIN_S)


class _Worker(threading.Thread):
    """Does one job after the other."""

    def __init__(self, jobs: queue.SimpleQueue[Job | None], rest: Callable[[], None]) -> None:
        # A daemon, because a name server that is silent must not keep a program from ending.
        super().__init__(name="regproto-exchange", daemon=True)
        self._jobs = jobs
        self._rest = rest
        self._job: Job | None = None
        self._waiter = Waiter()
        try:
            self.start()
        except BaseException:
            self._waiter.close()
            raise

    @property
    def is_stuck(self) -> bool:
        job = self._job
        return job is not None and job.is_stuck

    def run(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                self._job = job
                answer: Input | Crash | None
                try:
                    answer = job.work(self._waiter)
                except BaseException as error:
                    answer = Crash(job.id, error)
                # Idle before the answer is told: what it leads to finds this thread free.
                self._job = None
                self._rest()
                if answer is not None:
                    job.tell(answer)
                del job, answer
        finally:
            self._waiter.close()
