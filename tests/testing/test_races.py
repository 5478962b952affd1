"""Several sessions that attach to one subject at once: nothing is lost, and weaker ways to do it do lose."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

import regproto._engine.referrers_updates
from explored import UNREACHED, every_edge
from raced import QUICK, named
from regproto import Config, Guarantee
from regproto._http.referrers_list import Listing
from regproto._machines.base import Outcome, RegistryCapabilities
from regproto._machines.referrers import ReferrersMachine
from regproto.testing import Etag, Races, Violation

SMALL = [race for race in QUICK if race.sessions < 4 and (race.foreign < 2 or race.sessions < 2)]


@pytest.mark.parametrize("race", SMALL, ids=named)
def test_nothing_is_lost_inside_the_window_nor_outside_it_without_a_word(race: Races) -> None:
    found = race.explore()
    assert found.ends
    paces = {*race.slow, *[0.0] * (race.sessions - len(race.slow))}
    overrun = race.late > 0 or (len(paces) > 1 and max(paces) > 1.0)  # two round trips are more than W + D
    if not race.enforced:
        assert (found.lost > 0) is overrun, "outside the window something is, which shows that the walk can tell"
    assert found.edges <= every_edge() - UNREACHED.keys()


def test_alone_it_is_a_write_and_a_look() -> None:
    found = Races(sessions=1).explore()
    assert (found.states, found.transitions, found.ends) == (4, 3, 1), "a read, a write, a read"


def test_a_slow_session_whose_wide_window_fits_is_as_sure_as_the_others() -> None:
    for race in (Races(sessions=3, slow=(0.6,)), Races(sessions=2, slow=(0.6,), foreign=1)):
        found = race.explore()
        assert (found.lost, found.unsure) == (0, 0) and found.guarantees == {Guarantee.VERIFIED}


def test_sessions_that_are_all_too_slow_lose_nothing_of_each_other_and_say_that_they_may() -> None:
    found = Races(sessions=2, slow=(3.0, 3.0)).explore()
    assert found.lost == 0 and found.unsure == found.ends


def test_with_conditions_enforced_there_is_no_window() -> None:
    found = Races(sessions=3, enforced=True).explore()
    assert Guarantee.CONDITIONAL in found.guarantees and not found.lost


# --- weaker ways ------------------------------------------------------------------------------------------------


@attrs.define(kw_only=True, eq=False, repr=False)
class OneLook(ReferrersMachine):
    """Is done at the first look that shows its own entry."""

    def _decide_rest(self, listing: Listing, capabilities: RegistryCapabilities, config: Config) -> Outcome:
        if self.writes and self.fresh:
            return self._settle(Guarantee.VERIFIED)
        return ReferrersMachine._decide_rest(self, listing, capabilities, config)


@attrs.define(kw_only=True, eq=False, repr=False)
class OwnOnly(OneLook):
    """And writes nothing but its own entry into what it has just read."""

    def _note(self, listing: Listing) -> None:
        self.placed |= listing.entries.keys() & self.wanted.keys()


@attrs.define(kw_only=True, eq=False, repr=False)
class NoLook(ReferrersMachine):
    """Writes once, like all known clients."""

    def _decide_rest(self, listing: Listing, capabilities: RegistryCapabilities, config: Config) -> Outcome:
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
    monkeypatch.setattr(regproto._engine.referrers_updates, "ReferrersMachine", machine)
    with pytest.raises(Violation, match=r"lost inside the window\nafter:(.|\n)*writes"):
        Races(**race).explore()


def test_own_entries_alone_lose_with_four_writers_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regproto._engine.referrers_updates, "ReferrersMachine", OwnOnly)
    assert not Races(sessions=3).explore().lost


@attrs.define(kw_only=True, eq=False, repr=False)
class Sure(ReferrersMachine):
    """Says nothing of writes that were not answered in time."""

    def _settle(self, guarantee: Guarantee) -> Outcome:
        self.unsure = False
        return ReferrersMachine._settle(self, guarantee)


@pytest.mark.parametrize("outside", [{"late": 1}, {"slow": (3.0,)}])
def test_a_late_write_that_nobody_tells_of_is_found_out(
    outside: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regproto._engine.referrers_updates, "ReferrersMachine", Sure)
    with pytest.raises(Violation, match="nobody says so"):
        Races(sessions=2, **outside).explore()


@attrs.define(kw_only=True, eq=False, repr=False)
class Hasty(ReferrersMachine):
    """Waits no longer for quiet than a session of a quick registry."""

    @property
    def rest_s(self) -> float:
        return self.promise_s


def test_slow_sessions_that_do_not_wait_longer_lose_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regproto._engine.referrers_updates, "ReferrersMachine", Hasty)
    assert Races(sessions=2, slow=(3.0, 3.0)).explore().lost


# --- in simulated time ------------------------------------------------------------------------------------------


def _simulated() -> Any:
    path = Path(__file__).parents[2] / "benchmarks" / "simulated_races.py"
    spec = importlib.util.spec_from_file_location("simulated_races", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where attrs looks a class up
    spec.loader.exec_module(module)
    return module


SIMULATED = _simulated()


@pytest.mark.parametrize("etag", [Etag.SENT, Etag.ENFORCED])
@pytest.mark.parametrize("others", [0, 1, 4])
@pytest.mark.parametrize("round_trip_s", SIMULATED.ROUND_TRIPS_S)
def test_slow_registries_are_attached_to_and_nothing_is_lost_without_a_word(
    round_trip_s: float, others: int, etag: Etag
) -> None:
    for slow in (1, 3):
        race = SIMULATED.Simulation(slow, [round_trip_s] * slow + [0.0] * others, foreign=0, etag=etag)
        assert race.unsaid(race.run()) == []
        assert [result.error for result in race.results.values()] == [None] * (slow + others)
        assert race.late[:slow] == [2 if round_trip_s > 0.5 else 0] * slow
        assert max(race.writes) <= 6 and max(race.requests) <= 25
        if round_trip_s < 0.7:
            assert not any(told.unsure for result in race.results.values() for told in result.listed)
