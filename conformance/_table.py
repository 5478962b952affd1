"""What came of the scenarios, as a table."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from typing import Final, TextIO

import attrs

from conformance._scenario import Scenario


class Verdict(enum.Enum):
    """What came of one scenario."""

    HOLDS = "holds"
    FAILS = "FAILS"
    NOT_PLAYED = "not played"
    """It can't be, here; the row says why."""
    UNSUPPORTED = "not supported"
    """By the registry that was asked; the row says what."""


@attrs.frozen
class Row:
    """One scenario and what came of it."""

    scenario: Scenario
    verdict: Verdict
    why: str = ""


_WIDTH_MAX: Final = 60


def show(rows: Sequence[Row], out: TextIO) -> None:
    """Print the table, and then what failed in full."""
    width = min(_WIDTH_MAX, max(len(row.scenario.id) for row in rows)) if rows else 0
    theme = ""
    for row in rows:
        if row.scenario.theme != theme:
            theme = row.scenario.theme
            print(f"\n{theme}", file=out)
        why = f"  {row.why.splitlines()[0]}" if row.why and row.verdict is not Verdict.FAILS else ""
        print(f"  {row.scenario.id:{width}}  {row.verdict.value}{why}", file=out)
    for row in rows:
        if row.verdict is Verdict.FAILS:
            print(f"\n--- {row.scenario.theme}: {row.scenario.id}", file=out)
            print(f"    {row.scenario.says}", file=out)
            print(f"    ({'; '.join(row.scenario.source)})", file=out)
            print("\n".join(f"    {line}" for line in row.why.splitlines()), file=out)
    counts = Counter(row.verdict for row in rows)
    told = ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])
    print(f"\n{len(rows)} scenarios: {told or 'none'}", file=out)
