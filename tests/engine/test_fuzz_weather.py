"""Several pushes in one session, in any weather (tests/chaos.py): what no weather excuses holds after each run.

`scripts/fuzz` does it for longer, from other seeds each time.
"""

from __future__ import annotations

import os
import random

from chaos import Run

EXAMPLES = int(os.environ.get("REGPROTO_FUZZ_EXAMPLES", "0"))
"""0: the small edition, the same every time."""
SEEDS = [random.SystemRandom().randrange(2**32) for _ in range(EXAMPLES)] or list(range(250))
KNOWN = [503, 30084]
"""Seeds that found something."""


def test_whatever_the_weather() -> None:
    for seed in (*KNOWN, *SEEDS):
        try:
            Run(seed).run()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


def test_a_session_that_was_pickled_goes_on_the_same() -> None:
    for seed in SEEDS[: max(20, EXAMPLES // 10)]:
        whole = Run(seed).run().trace
        assert Run(seed, pickled_at=7 + seed % 90).run().trace == whole, f"seed {seed}"
