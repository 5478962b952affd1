"""How a push must end, and what must be told on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

import regproto
from conformance._content import Contents
from conformance._fields import Fields, Invalid, as_count, as_text, list_of, one_of
from conformance._names import Names
from regproto import Notice, PushOutcome, PushResult, RegistryError, Status

ERRORS: Final = {
    name: value
    for name in regproto.__all__
    if isinstance(value := getattr(regproto, name), type) and issubclass(value, regproto.RegprotoError)
}


@attrs.frozen(kw_only=True)
class ExpectedError:
    """Why a push must fail."""

    kind: str
    status: int | None
    codes: tuple[str, ...]
    says: tuple[str, ...]
    """Each stands somewhere in the message."""
    hides: tuple[str, ...]
    """None of these does."""


@attrs.frozen(kw_only=True)
class ExpectedResult:
    """How a push must end; what is None is not looked at."""

    outcome: str
    error: ExpectedError | None
    digest: str | None
    came: Mapping[str, tuple[str, ...]]
    """For `existing`, `mounted`, `uploaded` and `skipped` the names of what came to be there so."""
    warnings: tuple[str, ...] | None
    requests: int | None
    sent_bytes: int | None


@attrs.frozen(kw_only=True)
class ExpectedNotice:
    """News that must be told."""

    status: str
    subject: str | None
    says: str
    sent_bytes: int | None
    media_type: str | None


_CAME: Final = ("existing", "mounted", "uploaded", "skipped")


def read_result(raw: object, where: str) -> ExpectedResult:
    """A `result`. Raises `Invalid`."""
    fields = Fields(raw, where)
    result = ExpectedResult(
        outcome=fields.take("outcome", one_of(o.value for o in PushOutcome)),
        error=fields.maybe("error", read_error),
        digest=fields.maybe("digest", as_text),
        came={key: fields.take(key, list_of(as_text)) for key in _CAME if key in fields},
        warnings=fields.maybe("warnings", list_of(as_text)),
        requests=fields.maybe("requests", as_count),
        sent_bytes=fields.maybe("sent_bytes", as_count),
    )
    fields.end()
    if (result.outcome == "failed") is (result.error is None):
        raise Invalid(f"{where}: a push that fails has an error, and no other has")
    return result


def read_error(raw: object, where: str) -> ExpectedError:
    """An `error`. Raises `Invalid`."""
    fields = Fields(raw, where)
    error = ExpectedError(
        kind=fields.take("kind", one_of(ERRORS)),
        status=fields.maybe("status", as_count),
        codes=fields.many("codes", as_text),
        says=fields.many("says", as_text),
        hides=fields.many("hides", as_text),
    )
    fields.end()
    return error


def read_notice(raw: object, where: str) -> ExpectedNotice:
    """An entry of `told`. Raises `Invalid`."""
    fields = Fields(raw, where)
    notice = ExpectedNotice(
        status=fields.take("status", one_of(s.value for s in Status)),
        subject=fields.maybe("subject", as_text),
        says=fields.take("says", as_text, ""),
        sent_bytes=fields.maybe("sent_bytes", as_count),
        media_type=fields.maybe("media_type", as_text),
    )
    fields.end()
    return notice


def result_difference(expected: ExpectedResult, result: PushResult, names: Names) -> list[str]:
    """Where a result is not as it must be."""
    found: list[str] = []

    def compare(what: str, wanted: object, got: object) -> None:
        if wanted is not None and wanted != got:
            found.append(f"{what}: {got!r}, must be {wanted!r}")

    compare("outcome", expected.outcome, result.outcome.value)
    if expected.error is None and result.error is not None:
        found.append(f"error: {result.error}")
    if expected.error is not None and result.error is not None:
        found += error_difference(expected.error, result.error, names)
    if expected.digest is not None:
        compare("digest", names.contents[expected.digest].digest, result.digest)
    for key, wanted in expected.came.items():
        got = [getattr(d, "digest", d) for d in getattr(result, key)]
        compare(key, sorted(wanted), sorted(_name_of(digest, names.contents) for digest in got))
    compare("warnings", expected.warnings, result.warnings)
    compare("requests", expected.requests, result.requests)
    compare("sent bytes", expected.sent_bytes, result.sent_bytes)
    return found


def _name_of(digest: str, contents: Contents) -> str:
    return next((name for name, item in contents.items() if item.digest == digest), digest)


def error_difference(expected: ExpectedError, error: Exception, names: Names) -> list[str]:
    """Where an error is not as it must be."""
    found = []
    if type(error) is not ERRORS[expected.kind]:
        found.append(f"error: {type(error).__name__} ({error}), must be {expected.kind}")
    if expected.status is not None and getattr(error, "status", None) != expected.status:
        found.append(f"error: status {getattr(error, 'status', None)}, must be {expected.status}")
    codes = sorted(error.codes) if isinstance(error, RegistryError) else []
    if expected.codes and codes != sorted(expected.codes):
        found.append(f"error: codes {codes}, must be {sorted(expected.codes)}")
    found += [f"error: {str(error)!r} must say {t!r}" for t in expected.says if names.fill(t) not in str(error)]
    found += [f"error: {str(error)!r} must not say {t!r}" for t in expected.hides if names.fill(t) in str(error)]
    return found


def told_difference(expected: tuple[ExpectedNotice, ...], notices: list[Notice], names: Names) -> list[str]:
    """What must have been told, in this order among other news."""
    left = iter(notices)
    for wanted in expected:
        if not any(_is(wanted, notice, names) for notice in left):
            lines = [f"  {n.status.value} {n.subject} {n.sent_bytes} {n.text}" for n in notices]
            return ["\n".join([f"never told (in this order): {_shown(wanted)}; what was told:", *lines])]
    return []


def _is(wanted: ExpectedNotice, notice: Notice, names: Names) -> bool:
    return (
        wanted.status == notice.status.value
        and (wanted.subject is None or names.fill(wanted.subject) == notice.subject)
        and names.fill(wanted.says) in notice.text
        and wanted.sent_bytes in (None, notice.sent_bytes)
        and wanted.media_type in (None, notice.media_type)
    )


def _shown(wanted: ExpectedNotice) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in attrs.asdict(wanted).items() if value not in (None, ""))


def check_names(result: ExpectedResult, contents: Contents, where: str) -> None:
    """Every piece of content a result names must be there."""
    named = [name for names in result.came.values() for name in names]
    named += [result.digest] if result.digest is not None else []
    for name in named:
        if name not in contents:
            raise Invalid(f"{where}: there is no content {name!r}")
