"""Many pushes in one session under random faults: the small edition of scripts/soak."""

from __future__ import annotations

import pytest

from soak_runs import random_faults, soak


@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_every_push_gets_there(driver: str) -> None:
    done = soak(driver, 25, seed=3, rate=0.05)
    assert done.honest and done.succeeded == 25
    assert sum(done.faults.values()) >= 5


@pytest.mark.parametrize("driver", ["sync", "trio"])
def test_where_faults_are_too_many_failures_are_honest(driver: str) -> None:
    done = soak(driver, 25, seed=3, rate=0.3, attempts=2)
    assert done.honest and done.failures


def test_the_same_seed_makes_the_same_faults() -> None:
    one, two, other = ([random_faults(seed)(n, "GET", "/v2/") for n in range(1, 500)] for seed in (1, 1, 2))
    assert one == two != other
    assert 10 <= sum(fault is not None for fault in one) <= 40
