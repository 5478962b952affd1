"""Several sessions that attach to one subject at once: nothing is lost, and weaker ways to do it do lose."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

import regproto._lists
from explored import UNREACHED, every_edge
from raced import QUICK, named
from regproto import Config, Guarantee
from regproto._machine import Knowledge, Outcome
from regproto._referrers import ReferrersMachine
from regproto._referrers_list import Listing
from regproto.testing import Races, Violation

SMALL = [race for race in QUICK if race.sessions < 4 and (race.foreign < 2 or race.sessions < 2)]


@pytest.mark.parametrize("race", SMALL, ids=named)
def test_nothing_is_lost_inside_the_window_nor_outside_it_without_a_word(race: Races) -> None:
    found = race.explore()
    assert found.ends
    assert (found.lost > 0) is (race.late > 0), "outside the window something is, which shows that the walk can tell"
    assert found.edges <= every_edge() - UNREACHED.keys()


def test_alone_it_is_a_write_and_a_look() -> None:
    found = Races(sessions=1).explore()
    assert (found.states, found.transitions, found.ends) == (4, 3, 1), "a read, a write, a read"


def test_with_conditions_enforced_there_is_no_window() -> None:
    found = Races(sessions=3, enforced=True).explore()
    assert Guarantee.CONDITIONAL in found.guarantees and not found.lost


# --- weaker ways ------------------------------------------------------------------------------------------------


@attrs.define(kw_only=True, eq=False, repr=False)
class OneLook(ReferrersMachine):
    """Is done at the first look that shows its own entry."""

    def _decide_rest(self, listing: Listing, knowledge: Knowledge, config: Config) -> Outcome:
        if self.writes and self.fresh:
            return self._settle(Guarantee.LOOKED_AGAIN)
        return ReferrersMachine._decide_rest(self, listing, knowledge, config)


@attrs.define(kw_only=True, eq=False, repr=False)
class OwnOnly(OneLook):
    """And writes nothing but its own entry into what it has just read."""

    def _note(self, listing: Listing) -> None:
        self.placed |= listing.entries.keys() & self.wanted.keys()


@attrs.define(kw_only=True, eq=False, repr=False)
class NoLook(ReferrersMachine):
    """Writes once, like all known clients."""

    def _decide_rest(self, listing: Listing, knowledge: Knowledge, config: Config) -> Outcome:
        return self._settle(Guarantee.WRITTEN)


@pytest.mark.parametrize(
    ("machine", "race"),
    [
        (NoLook, {"sessions": 2}),
        (OwnOnly, {"sessions": 4}),
        (OwnOnly, {"sessions": 2, "foreign": 2}),
        (OneLook, {"sessions": 2, "foreign": 1}),
    ],
)
def test_weaker_ways_lose(
    machine: type[ReferrersMachine], race: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regproto._lists, "ReferrersMachine", machine)
    with pytest.raises(Violation, match=r"lost inside the window\nafter:(.|\n)*writes"):
        Races(**race).explore()


def test_own_entries_alone_lose_with_four_writers_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regproto._lists, "ReferrersMachine", OwnOnly)
    assert not Races(sessions=3).explore().lost


@attrs.define(kw_only=True, eq=False, repr=False)
class Sure(ReferrersMachine):
    """Says nothing of writes that were not answered in time."""

    def _settle(self, guarantee: Guarantee) -> Outcome:
        self.unsure = False
        return ReferrersMachine._settle(self, guarantee)


def test_a_late_write_that_nobody_tells_of_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regproto._lists, "ReferrersMachine", Sure)
    with pytest.raises(Violation, match="nobody says so"):
        Races(sessions=2, late=1).explore()
