"""The races that are walked, by scripts/explore-referrers and by tests/testing/test_races.py."""

from __future__ import annotations

from typing import Final

from regproto.testing import Races

QUICK: Final = (
    *(Races(sessions=n) for n in (1, 2, 3, 4)),
    Races(sessions=2, foreign=1),
    Races(sessions=2, foreign=2),
    Races(sessions=3, foreign=1),
    *(Races(sessions=n, faults=1) for n in (2, 3)),
    *(Races(sessions=n, enforced=True) for n in (2, 3, 4)),
    *(Races(sessions=n, late=1) for n in (2, 3)),
    Races(sessions=2, foreign=1, late=1),
    *(Races(sessions=n, slow=(r,)) for n in (1, 2, 3) for r in (0.6, 3.0)),
    *(Races(sessions=2, slow=(r,), foreign=1) for r in (0.6, 3.0)),
    *(Races(sessions=2, slow=both) for both in ((0.6, 0.6), (0.6, 3.0), (3.0, 3.0))),
    *(Races(sessions=2, slow=(r,), enforced=True) for r in (0.6, 3.0)),
)
"""Half a minute together."""
DEEP: Final = (
    Races(sessions=3, faults=2),
    Races(sessions=3, late=2),
    Races(sessions=3, foreign=1, faults=1),
    Races(sessions=3, foreign=1, late=1),
    Races(sessions=3, foreign=2),
    *(Races(sessions=3, slow=(r,), foreign=1) for r in (0.6, 3.0)),
    Races(sessions=3, slow=(0.6, 3.0)),
)
"""Minutes. Four sessions with a foreign writer are beyond it; benchmarks/simulated_races.py tries those."""


def named(race: Races) -> str:
    """A race in words."""
    parts = [f"{race.sessions} session" + "s" * (race.sessions > 1)]
    parts += [f"one {r:g} s slow" for r in race.slow]
    parts += [f"{race.foreign} foreign"] * bool(race.foreign)
    parts += ["conditions enforced"] * race.enforced
    parts += [f"{race.faults} fault" + "s" * (race.faults > 1)] * bool(race.faults)
    parts += [f"{race.late} late"] * bool(race.late)
    return ", ".join(parts)
