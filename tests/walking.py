"""Walks what is to be explored, in processes side by side: for `scripts/explore` and tests/testing/test_explorer.py."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from explored import Scenario, scenarios
from regproto.testing import Exploration, Violation

SCENARIOS = tuple(scenarios())


def walk(number: int) -> tuple[Exploration | str, float]:
    """What one scenario came to, or what does not hold; and the seconds it took."""
    begun = time.monotonic()
    try:
        return SCENARIOS[number].explorer.explore(), time.monotonic() - begun
    except Violation as violation:
        return str(violation), time.monotonic() - begun


def walk_all(jobs: int = os.cpu_count() or 1) -> Iterator[tuple[Scenario, Exploration | str, float]]:
    """All of them, in order; ends with the first that does not hold."""
    # Not forked: a child of a process that is being measured would be measured too, and be slow.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as processes:
        for scenario, (found, seconds) in zip(SCENARIOS, processes.map(walk, range(len(SCENARIOS))), strict=True):
            yield scenario, found, seconds
            if isinstance(found, str):
                processes.shutdown(cancel_futures=True)
                return
