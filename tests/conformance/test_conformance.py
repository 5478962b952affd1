"""The conformance scenarios: all hold, and none would hold if what it says were changed."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from conformance import _core
from conformance._cli import lacking, main, over_http
from conformance._fields import Invalid
from conformance._scenario import SCENARIOS, Scenario, read_all, read_theme
from conformance._table import Row, Verdict
from regproto.testing import Exchange, FakeRegistry, Fault, FaultKind, RegistryOptions, RequestHead, SimulationStuck
from regproto_sync import Server

ALL = read_all()
FILES = sorted(SCENARIOS.glob("*.json"))


@pytest.mark.parametrize("scenario", ALL, ids=lambda s: f"{s.theme}:{s.id}")
def test_core(scenario: Scenario) -> None:
    assert "\n".join(_core.check(scenario)) == ""


@pytest.mark.parametrize("driver", ["regproto_sync:run_session", "regproto_trio:run_session"])
def test_driver(driver: str) -> None:
    rows = over_http(ALL, driver)
    failed = [f"{row.scenario.id}: {row.why}" for row in rows if row.verdict is Verdict.FAILS]
    assert "\n".join(failed) == ""
    assert sum(row.verdict is Verdict.HOLDS for row in rows) > len(rows) / 2


# --- the scenarios themselves -----------------------------------------------------------------------------------


def raw_scenarios() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Theme, file and entry of every scenario."""
    files = [(path.stem, json.loads(path.read_text())) for path in FILES]
    return [(theme, whole, entry) for theme, whole in files for entry in whole["scenarios"]]


def mutants(entry: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The scenario with one thing it expects changed, each in turn."""

    def changed(what: str, change: Any) -> tuple[str, dict[str, Any]]:
        other = copy.deepcopy(entry)
        change(other)
        return what, other

    if "refused" in entry:
        return [
            changed("another kind", lambda e: e["refused"].update(kind="TransportError")),
            changed("other words", lambda e: e["refused"].update(says=["never said"])),
            changed("a plan that is taken", lambda e: e.update(push={"root": "image"}, content={})),
        ]
    found = []
    for n in range(len(entry.get("asked", ()))):
        found.append(changed(f"another asked[{n}]", lambda e, n=n: e["asked"].__setitem__(n, "GET /v2/{repo}/nothing")))
        if not entry.get("others_asked") and not _is_optional(entry["asked"][n]):
            found.append(changed(f"without asked[{n}]", lambda e, n=n: e["asked"].pop(n)))
    if "asked" in entry and not entry.get("others_asked"):
        found.append(changed("one request more", lambda e: e["asked"].append("GET /v2/{repo}/nothing")))
        found.append(changed("nothing asked", lambda e: e.update(asked=[])))
    for key in entry.get("counts", ()):
        found.append(changed(f"count of {key}", lambda e, key=key: e["counts"].update({key: 97})))
    for n in range(len(entry.get("results", ())) or 1):
        found.append(changed(f"outcome {n}", lambda e, n=n: _other_outcome((e.get("results") or [e.get("result")])[n])))
    for key in ("existing", "mounted", "uploaded", "skipped"):
        if key in entry.get("result", ()):
            found.append(changed(key, lambda e, key=key: _other_items(e, key)))
    if "told" in entry:
        found.append(changed("told", lambda e: e["told"].append({"status": "warning", "says": "never said"})))
    found.append(changed("sessions left open", lambda e: e.update(left_open=e.get("left_open", 0) + 1)))
    return found


def _is_optional(asked: Any) -> bool:
    return isinstance(asked, dict) and asked.get("times", 1) in ([0, n] for n in range(100))


def _other_outcome(result: dict[str, Any]) -> None:
    if result.pop("error", None) is None:
        result["error"] = {"kind": "RegistryError"}
        result["outcome"] = "failed"
    else:
        result["outcome"] = "pushed"


def _other_items(entry: dict[str, Any], key: str) -> None:
    if entry["result"][key]:
        entry["result"][key] = entry["result"][key][1:]
    else:
        entry.setdefault("content", {})["never-pushed"] = {"text": "never pushed"}
        entry["result"][key] = ["never-pushed"]


@pytest.mark.parametrize(
    ("theme", "whole", "entry"), [pytest.param(*raw, id=f"{raw[0]}:{raw[2]['id']}") for raw in raw_scenarios()]
)
def test_a_changed_scenario_fails(theme: str, whole: dict[str, Any], entry: dict[str, Any]) -> None:
    for what, mutant in mutants(entry):
        try:
            scenario, *_ = read_theme({**whole, "scenarios": [mutant]}, theme)
        except Invalid:
            continue  # it can't even be written
        try:
            found = _core.check(scenario)
        except SimulationStuck:
            continue
        assert found, f"{entry['id']}: still holds with {what}"


def test_the_readme_names_scenarios_that_are_there() -> None:
    text = (SCENARIOS.parent / "README.md").read_text()
    table = text.partition("## What go-containerregistry")[2].partition("\n## ")[0]
    named = re.findall("`([a-z0-9-]+)`", table)
    assert len(named) > 40
    assert sorted(set(named) - {scenario.id for scenario in ALL}) == []


ROWS = (
    "HEAD blob",
    "POST start",
    "HEAD source",
    "POST mount",
    "single POST",
    "PATCH",
    "PUT with the body",
    "PUT commit",
    "PUT manifest",
    "PUT tag",
    "GET token",
    "POST token",
    "GET referrers API",
    "GET list",
    "PUT list",
)
COLUMNS = ("not sent", "lost", "timed-out", "401", "404", "416", "429", "5xx")


def test_every_cell_of_the_matrix_has_a_scenario() -> None:
    cells = [scenario.cell for scenario in ALL if scenario.cell is not None]
    assert sorted({row for row, _ in cells} ^ set(ROWS)) == []
    assert sorted({(row, column) for row in ROWS for column in COLUMNS} - set(cells)) == []
    assert {column for _, column in cells} <= set(COLUMNS)


VALID: dict[str, Any] = {
    "id": "x",
    "says": "It does.",
    "source": ["somewhere"],
    "content": {"layer": {"text": "0123456789"}},
    "push": {"blobs": ["layer"]},
    "asked": ["POST **"],
    "result": {"outcome": "pushed"},
}


def read(**changes: Any) -> Scenario:
    entry = {key: value for key, value in {**VALID, **changes}.items() if value is not None}
    [scenario] = read_theme({"about": "a test", "scenarios": [entry]}, "test")
    return scenario


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"surprise": 1}, "unknown surprise"),
        ({"asked": None}, "checks nothing"),
        ({"asked": [], "others_asked": True}, "checks nothing"),
        ({"result": None}, "either result or results"),
        ({"results": [{"outcome": "pushed"}]}, "either result or results"),
        ({"result": None, "results": []}, "a result for each push"),
        ({"result": {"outcome": "great"}}, "must be one of"),
        ({"result": {"outcome": "failed"}}, "a push that fails has an error"),
        ({"result": {"outcome": "pushed", "uploaded": ["nope"]}}, "no content 'nope'"),
        ({"result": {"outcome": "pushed", "loaded": []}}, "unknown loaded"),
        ({"source": []}, "where that is written"),
        ({"source": None}, "source is missing"),
        ({"push": {"blobs": ["nope"]}}, "no content 'nope'"),
        ({"push": {"blobs": ["layer"], "root": "layer"}}, "either a root or blobs"),
        ({"push": {"blobs": ["layer"], "tags": ["1"]}}, "tags need a root"),
        ({"asked": ["POST"]}, "is not `METHOD target`"),
        ({"asked": ["POST /{nope}"]}, "nothing is called {nope}"),
        ({"asked": ["POST ** <- nope"]}, "no content 'nope'"),
        ({"asked": [{"request": "POST **", "header": {}}]}, "unknown header"),
        ({"asked": [{"request": "POST **", "times": [2, 1]}]}, "[least, most]"),
        ({"asked": [{"request": "POST **", "headers": {"A": 1}}]}, "must be a string, or null"),
        ({"answers": [{"to": "POST **"}]}, "has no answers"),
        ({"answers": [{"to": "POST **", "answers": [{}]}]}, "exactly one of"),
        ({"answers": [{"to": "POST **", "answers": [{"lost": False}]}]}, "can only be true"),
        ({"answers": [{"to": "POST **", "answers": [{"lost": True, "cut": 1, "done": True}]}]}, "can't be done"),
        ({"answers": [{"to": "POST **", "answers": [{"not_sent": True}]}]}, "can't be played over HTTP"),
        ({"answers": [{"to": "POST **", "answers": [{"status": 200, "headers": {"A": "{x}"}}]}]}, "called {x}"),
        ({"registry": {"switches": {"nope": 1}}}, "unknown nope"),
        ({"registry": {"switches": {"auth": "magic"}}}, "is none of"),
        ({"registry": {"switch": {}}}, "unknown switch"),
        ({"registry": {"has": {"{repo}": ["nope"]}}}, "no content 'nope'"),
        ({"config": {"nope": 1}}, "unknown nope"),
        ({"config": {"attempts": 0}}, "must be more than 0"),
        ({"content": {"layer": {"text": "a", "pattern": "b"}}}, "exactly one of"),
        ({"content": {"layer": {"pattern": "a", "size": 10**9}}}, "at most"),
        ({"content": {"layer": {"image": {"config": "nope", "layers": []}}}}, "no content 'nope' before this"),
        ({"waited_s": 1}, "say why in core_only"),
        ({"killed_at": "PUT **"}, "say why in core_only"),
        ({"refused": {"kind": "ContentError"}, "result": None}, "nothing is asked"),
        ({"id": "Not an id"}, "small letters"),
        ({"each": {"a": [1], "b": [2]}}, "one word"),
        ({"each": {"a": [1]}}, "$a stands nowhere"),
        ({"any_registry": ["teleport"]}, "must be one of"),
        ({"any_registry": [], "registry": {"switches": {"mount": False}}}, "no script and no switches"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read(**changes)
    assert says in str(refusal.value)


def test_an_answer_nothing_asks_for_is_a_failure() -> None:
    scenario = read(answers=[{"to": "GET /never", "answers": [{"status": 200}]}])
    assert any("never asked for: GET /never" in line for line in _core.check(scenario))


def test_a_failure_says_what_was_asked_and_what_must_be() -> None:
    scenario = read(asked=["HEAD **", {"request": "POST ** <- layer[1:]", "headers": {"Content-Type": "text/plain"}}])
    [found] = _core.check(scenario)
    assert found.splitlines()[:2] == [
        "asked:",
        f"  >> POST /v2/team/app/blobs/uploads/?digest={scenario.contents['layer'].digest} <- 10 bytes '0123456789'",
    ]
    assert "must come there:\n     HEAD **" in found
    [found] = _core.check(read(asked=[{"request": "POST **", "headers": {"Content-Type": "text/plain"}}]))
    assert "but Content-Type is 'application/octet-stream', not 'text/plain'" in found


# --- the command ------------------------------------------------------------------------------------------------


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-k", "blob-there"]) == 0
    assert "blob-there  holds" in capsys.readouterr().out
    assert main(["--list", "-k", "blob-there"]) == 0
    assert "is not sent" in capsys.readouterr().out
    assert main(["-k", "no scenario is called so"]) == 2
    assert main(["-k", "blob-there", "--driver", "regproto_sync:nope"]) == 2
    assert "nope" in capsys.readouterr().err


def test_the_command_fails_where_a_scenario_does(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    entry = VALID | {"asked": ["GET /v2/"]}
    (tmp_path / "x.json").write_text(json.dumps({"about": "a test", "scenarios": [entry]}))
    assert main(["--scenarios", str(tmp_path)]) == 1
    assert "must come there:\n         GET /v2/" in capsys.readouterr().out
    (tmp_path / "x.json").write_text('{"about": "a", "about": "b", "scenarios": []}')
    assert main(["--scenarios", str(tmp_path)]) == 2


def test_a_registry(capsys: pytest.CaptureFixture[str]) -> None:
    with Server(FakeRegistry(RegistryOptions(mount=False, single_post=202))) as server:
        assert main(["--registry", server.url.removeprefix("http://")]) == 0
        shown = capsys.readouterr().out
        assert "it does not support mount, single-post" in shown.splitlines()[0]
        assert re.search("mount-an-image +not supported  mount", shown)
        assert re.search("push-an-index +holds", shown)
    assert main(["--registry", server.url.removeprefix("http://")]) == 2
    assert "Connection refused" in capsys.readouterr().err


def test_a_registry_that_forgets(capsys: pytest.CaptureFixture[str]) -> None:
    class Forgetful(FakeRegistry):
        def open(self, head: RequestHead, now: float = 0.0, fault: Fault | None = None) -> Exchange:
            if head.method == "GET" and "/blobs/sha256:" in head.target:
                fault = Fault(kind=FaultKind.STATUS, status=404)
            return super().open(head, now, fault)

    with Server(Forgetful()) as server:
        assert main(["--registry", server.url.removeprefix("http://"), "-k", "push-a-blob"]) == 1
        assert "told to be pushed, but can't be read: layer" in capsys.readouterr().out


def test_what_a_driver_lacks_must_really_fail(capsys: pytest.CaptureFixture[str]) -> None:
    driver = ["--driver", "regproto_sync:run_session", "--lacks", "streams"]
    assert main([*driver, "-k", "stream-refused"]) == 1
    assert "streams: declared to be lacking, but it holds" in capsys.readouterr().out
    assert main([*driver, "-k", "blob-there"]) == 0
    scenario = next(s for s in ALL if s.id == "stream-refused")
    assert lacking([Row(scenario, Verdict.FAILS, "no")], frozenset({"streams"})) == [
        Row(scenario, Verdict.UNSUPPORTED, "streams")
    ]
    assert lacking([Row(scenario, Verdict.FAILS, "no")], frozenset())[0].verdict is Verdict.FAILS
