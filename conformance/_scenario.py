"""Scenarios: read from JSON, and everything in them checked before any is played."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from conformance._answers import Scripted, read_scripted
from conformance._asked import Asked, read_asked
from conformance._content import Contents, read_contents
from conformance._fields import (
    Fields,
    Invalid,
    anything,
    as_count,
    as_flag,
    as_list,
    as_object,
    as_range,
    as_text,
    list_of,
    object_of,
    one_of,
)
from conformance._fit import check_fit
from conformance._names import Names
from conformance._plan import Plan, read_plan
from conformance._probe import PROBES
from conformance._requests import Pattern
from conformance._results import (
    ExpectedError,
    ExpectedNotice,
    ExpectedResult,
    read_error,
    read_notice,
    read_result,
)
from conformance._switches import read_config, read_keychain, read_switches

_ID: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
DRIVER_NEEDS: Final = ("streams",)
"""What not every driver does."""
SCENARIOS: Final = Path(__file__).parent / "scenarios"


@attrs.frozen(kw_only=True)
class Scenario:
    """One behaviour: what is pushed, what the registry does, what must be asked and what must come of it."""

    id: str
    theme: str
    says: str
    source: tuple[str, ...]
    cell: tuple[str, str] | None
    """The request and the answer, where it is a cell of the matrix "what to do with each answer"."""
    contents: Contents
    raw_contents: Mapping[str, Any]
    config: Mapping[str, Any]
    keychain: Mapping[str, str] | None
    switches: Mapping[str, Any]
    """Of the fake registry."""
    has: Mapping[str, tuple[str, ...]]
    """Content that is there beforehand, by repository."""
    tags: Mapping[str, Mapping[str, str]]
    answers: tuple[Scripted, ...]
    plans: tuple[Plan, ...]
    cancel_at: Pattern | None
    killed_at: Pattern | None
    """When this is asked, the process ends; another one goes on with what the first kept, and with the same pushes."""
    asked: Asked | None
    not_asked: tuple[Pattern, ...]
    counts: tuple[tuple[Pattern, int, int], ...]
    results: tuple[ExpectedResult, ...]
    refused: ExpectedError | None
    """Not None: the plan itself is refused, before anything is asked."""
    told: tuple[ExpectedNotice, ...]
    there: bool
    """What a successful push named must be in the registry afterwards."""
    left_open: int
    """Upload sessions that must be open afterwards."""
    waited_s: tuple[int, int] | None
    core_only: str
    """Not empty: why it can't be played over HTTP."""
    any_registry: tuple[str, ...] | None
    """What a real registry must support for this; None: it is not meant for real ones."""

    @property
    def driver_needs(self) -> frozenset[str]:
        """What of `DRIVER_NEEDS` a driver must do for this."""
        return frozenset({"streams"} if any(plan.streams for plan in self.plans) else ())

    @property
    def has_silence(self) -> bool:
        """Whether an answer never comes, on a connection that stays."""
        return any(answer.kind == "silence" for to in self.answers for answer in (*to.answers, to.always) if answer)

    def salted(self, salt: str) -> Scenario:
        """The same with content that nobody else has."""
        return attrs.evolve(self, contents=read_contents(self.raw_contents, self.id, salt))

    def names(self, **changes: str) -> Names:
        """What the words in braces mean."""
        return Names(contents=self.contents, **changes)


def read_all(folder: Path = SCENARIOS) -> list[Scenario]:
    """Every scenario of a folder's files, in order of the files' names. Raises `Invalid`."""
    found: list[Scenario] = []
    for path in sorted(folder.glob("*.json")):
        found += read_file(path)
    _check_ids(found)
    return found


def read_file(path: Path) -> list[Scenario]:
    """The scenarios of one file. Raises `Invalid`."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_no_key_twice)
    except ValueError as error:
        raise Invalid(f"{path.name}: {error}") from None
    return read_theme(raw, path.stem)


def read_theme(raw: object, theme: str) -> list[Scenario]:
    """The scenarios of a file's JSON. Raises `Invalid`."""
    fields = Fields(raw, theme)
    fields.take("about", as_text)
    shared = fields.mapping("content", anything)
    config = fields.mapping("config", anything)
    entries = fields.take("scenarios", as_list)
    fields.end()
    variants = [variant for n, entry in enumerate(entries) for variant in _each(entry, f"{theme}[{n}]")]
    found = [_scenario(entry, theme, shared, config, n) for n, entry in enumerate(variants)]
    _check_ids(found)
    return found


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise Invalid(f"the key {', '.join(twice)} stands twice in one object")
    return dict(pairs)


def _check_ids(scenarios: list[Scenario]) -> None:
    ids = [scenario.id for scenario in scenarios]
    twice = sorted({scenario_id for scenario_id in ids if ids.count(scenario_id) > 1})
    if twice:
        raise Invalid(f"more than one scenario is called {', '.join(twice)}")


def _scenario(
    raw: object, theme: str, shared: Mapping[str, Any], shared_config: Mapping[str, Any], number: int
) -> Scenario:
    fields = Fields(raw, f"{theme}[{number}]")
    scenario_id = fields.take("id", as_text)
    fields.where = where = f"{theme}: {scenario_id}"
    if not _ID.fullmatch(scenario_id):
        raise Invalid(f"{where}: an id is of small letters, digits and dashes")
    raw_contents = dict(shared) | fields.mapping("content", anything)
    contents = read_contents(raw_contents, f"{where}.content")
    others = fields.take("others_asked", as_flag, False)
    refused = fields.maybe("refused", read_error)
    registry = Fields(fields.mapping("registry", anything), f"{where}.registry")
    scenario = Scenario(
        id=scenario_id,
        theme=theme,
        says=fields.take("says", as_text),
        source=fields.take("source", list_of(as_text)),
        cell=fields.maybe("cell", _cell),
        contents=contents,
        raw_contents=raw_contents,
        config=read_config(dict(shared_config) | fields.mapping("config", anything), f"{where}.config"),
        keychain=fields.maybe("keychain", read_keychain),
        switches=registry.maybe("switches", read_switches) or {},
        has=registry.mapping("has", list_of(as_text)),
        tags=registry.mapping("tags", object_of(as_text)),
        answers=fields.many("answers", read_scripted),
        plans=_one_or_more(fields, "push", "pushes", read_plan),
        cancel_at=fields.maybe("cancel_at", Pattern.read_text),
        killed_at=fields.maybe("killed_at", Pattern.read_text),
        asked=fields.maybe("asked", lambda value, at: read_asked(value, at, others)),
        not_asked=fields.many("not_asked", Pattern.read_text),
        counts=fields.maybe("counts", _counts) or (),
        refused=refused,
        results=_one_or_more(fields, "result", "results", read_result) if not refused else (),
        told=fields.many("told", read_notice),
        there=fields.take("there", as_flag, True),
        left_open=fields.take("left_open", as_count, 0),
        waited_s=fields.maybe("waited_s", as_range),
        core_only=fields.take("core_only", as_text, ""),
        any_registry=fields.maybe("any_registry", list_of(one_of(PROBES))),
    )
    registry.end()
    fields.end()
    check_fit(scenario, where)
    return scenario


def _each(raw: object, where: str) -> list[object]:
    """A scenario with `each: {"word": [values]}` is one for each value, which stands for `$word` everywhere.

    The values may be an object: then their names go into the ids, and stand for `$word.name`.
    """
    if not isinstance(raw, dict) or "each" not in raw:
        return [raw]
    each = as_object(raw["each"], f"{where}.each")
    if len(each) != 1:
        raise Invalid(f"{where}.each must have one word")
    [(word, values)] = each.items()
    rest = {key: value for key, value in raw.items() if key != "each"}
    if f"${word}" not in json.dumps(rest):
        raise Invalid(f"{where}.each: ${word} stands nowhere")
    named = values if isinstance(values, dict) else {str(v): v for v in as_list(values, f"{where}.each.{word}")}
    named_rest = [(name, value, _replaced(rest, f"${word}.name", name)) for name, value in named.items()]
    variants = [(name, _replaced(named, f"${word}", value)) for name, value, named in named_rest]
    return [{**variant, "id": f"{variant.get('id')}-{name}"} for name, variant in variants]


def _replaced(raw: Any, word: str, value: Any) -> Any:
    if isinstance(raw, dict):
        return {_replaced(key, word, value): _replaced(item, word, value) for key, item in raw.items()}
    if isinstance(raw, list):
        return [_replaced(item, word, value) for item in raw]
    if isinstance(raw, str):
        return value if raw == word else raw.replace(word, str(value))
    return raw


def _one_or_more(fields: Fields, one: str, more: str, read: Any) -> tuple[Any, ...]:
    if (one in fields) is (more in fields):
        raise Invalid(f"{fields.where} must have either {one} or {more}")
    return (fields.take(one, read),) if one in fields else fields.take(more, list_of(read))


def _cell(raw: object, where: str) -> tuple[str, str]:
    match as_list(raw, where):
        case [str(row), str(column)]:
            return row, column
    raise Invalid(f"{where} must be [request, answer]")


def _counts(raw: object, where: str) -> tuple[tuple[Pattern, int, int], ...]:
    entries = object_of(as_range)(raw, where)
    return tuple((Pattern.read(line, where), *times) for line, times in entries.items())
