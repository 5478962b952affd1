"""A scenario against a real registry: through a driver, in repositories that no other run uses.

There is no script and there are no switches: what the registry does is its own, and what is asked is what the session
said. What was pushed is read back by plain requests.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from conformance._content import Item
from conformance._fields import Invalid
from conformance._http import Keychain, in_time, perform
from conformance._names import Names
from conformance._plan import whole
from conformance._played import Outcome, differences
from conformance._probe import PROBES, Probe, ask
from conformance._requests import Seen
from conformance._scenario import Scenario
from conformance._switches import make_config
from conformance._table import Row, Verdict
from regproto import Blob, BlobSlice, Manifest, Output, PushOutcome, PushPlan, Send, Session, Stream, registry_url
from regproto.testing import RunSession
from regproto_sync import BytesContent, docker_keychain


def play_all(scenarios: Sequence[Scenario], registry: str, run: RunSession) -> tuple[list[Row], str]:
    """The rows of these scenarios, and what the registry supports in words. Raises `Invalid` if it can't be asked."""
    bench = _Bench(registry_url(registry), f"conformance/{uuid.uuid4().hex[:12]}/", run)
    try:
        features = Probe(bench.url, f"{bench.prefix}probe/").features()
    except OSError as error:
        raise Invalid(f"{registry}: {error}") from None
    missing = sorted(PROBES.keys() - features)
    told = f"{registry} supports {', '.join(sorted(features)) or 'nothing of what was probed'}"
    told += f"; it does not support {', '.join(missing)}" if missing else ""
    return [_row(scenario, bench, features) for scenario in scenarios if scenario.any_registry is not None], told


def _row(scenario: Scenario, bench: _Bench, features: frozenset[str]) -> Row:
    lacking = sorted(set(scenario.any_registry or ()) - features)
    if lacking:
        return Row(scenario, Verdict.UNSUPPORTED, ", ".join(lacking))
    try:
        found = bench.check(scenario)
    except Exception as error:
        found = [f"{type(error).__name__}: {error}"]
    return Row(scenario, Verdict.FAILS, "\n".join(found)) if found else Row(scenario, Verdict.HOLDS)


class Recording:
    """A session whose requests are taken note of, for any driver."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.seen: list[Seen] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def poll(self, now: float) -> Output:
        """The session's own `poll`."""
        output = self._session.poll(now)
        if isinstance(output, Send):
            self.seen.append(_seen(output))
        return output


def _seen(send: Send) -> Seen:
    body, headers = send.body, send.headers
    if isinstance(body, Stream):
        return Seen(method=send.method, url=send.url, headers=headers)
    if isinstance(body, BlobSlice):
        assert isinstance(body.source, BytesContent)
        body = body.source.data[body.offset : body.offset + body.size]
    if send.method in ("POST", "PUT", "PATCH"):
        headers = (*headers, ("Content-Length", str(len(body))))
    return Seen(method=send.method, url=send.url, headers=headers, body=body, whole=True)


@attrs.frozen
class _Bench:
    url: str
    prefix: str
    run: RunSession

    def check(self, scenario: Scenario) -> list[str]:
        """Plays a scenario; what is not as it says."""
        # Some registries have one store for all repositories: what nobody else has is nowhere before it is pushed.
        scenario = scenario.salted(f"{self.prefix}{scenario.id}")
        names = scenario.names(registry=self.url, prefix=f"{self.prefix}{scenario.theme}/{scenario.id}/")
        self._furnish(scenario, names)
        recording = Recording(Session(self.url, make_config(scenario.config, names), seed=1, now=time.monotonic()))
        pushes, results = perform(scenario, self.run, recording, names, _keychain())
        outcome = Outcome(seen=recording.seen, pushes=pushes, results=results)
        found = differences(scenario, outcome, names)
        for push, result in zip(pushes, outcome.results, strict=True):
            if result.outcome is PushOutcome.PUSHED:
                found += self._missing(whole(push), names)
        return found

    def _furnish(self, scenario: Scenario, names: Names) -> None:
        """Push what must be there beforehand."""
        for repository, items in scenario.has.items():
            there = [names.contents[name] for name in items]
            blobs = tuple(_blob(item) for item in there if not item.is_manifest)
            self._push(PushPlan(repository=names.fill(repository), blobs=blobs))
            for item in there:
                if item.is_manifest:
                    self._push(_alone(names.fill(repository), item))
        for repository, tags in scenario.tags.items():
            for tag, name in tags.items():
                self._push(_alone(names.fill(repository), names.contents[name], names.fill(tag)))

    def _push(self, push: PushPlan) -> None:
        session = Session(self.url, seed=1, now=time.monotonic())
        number = session.submit(push)
        result = in_time(self.run, session, [number], _keychain())[number]
        if result.error is not None:
            raise result.error

    def _missing(self, push: PushPlan, names: Names) -> list[str]:
        """What a push named and can't be read back."""
        name_of = {item.digest: name for name, item in names.contents.items()}
        base = f"{self.url}/v2/{push.repository}"
        found = []
        for blob in push.blobs:
            answered = ask("GET", f"{base}/blobs/{blob.descriptor.digest}")
            content = names.contents[name_of[blob.descriptor.digest]].content
            if answered.status not in (301, 302, 307) and (answered.status, answered.body) != (200, content):
                found.append(f"told to be pushed, but can't be read: {name_of[blob.descriptor.digest]}")
        tagged = [(tag, m) for m in push.manifests if m.descriptor.digest == push.root for tag in push.tags]
        for reference, manifest in [(str(m.descriptor.digest), m) for m in push.manifests] + tagged:
            answered = ask("GET", f"{base}/manifests/{reference}", headers={"Accept": manifest.descriptor.media_type})
            if (answered.status, answered.body) != (200, manifest.content):
                found.append(f"told to be pushed, but can't be read: {name_of[manifest.descriptor.digest]} {reference}")
        return found


def _blob(item: Item) -> Blob:
    return Blob(descriptor=item.descriptor, source=BytesContent(item.content))


def _alone(repository: str, item: Item, *tags: str) -> PushPlan:
    manifest = Manifest.of(item.content, item.descriptor)
    absent = frozenset(named.digest for named in manifest.names())
    return PushPlan(repository=repository, manifests=(manifest,), root=item.digest, tags=tags, omitted=absent)


def _keychain() -> Keychain:
    return docker_keychain(os.environ, Path(os.path.expanduser("~")))
