"""A scenario's options: of the session, of the fake registry, and what is in the keychain."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

import attrs

from conformance._fields import Fields, Invalid, as_flag, as_number, as_object, as_text, list_of, object_of
from conformance._names import Names
from regproto import Config
from regproto.testing import FakeRegistry, Grant, RegistryOptions

QUICK: Final = {"backoff_base_s": 0.01, "backoff_max_s": 0.05}
"""Where a scenario says nothing of waiting, nobody waits long."""
_CONFIG: Final = {field.name for field in attrs.fields(Config)}
_OPTIONS: Final = {field.name: field.default for field in attrs.fields(RegistryOptions)}
_NO_SWITCHES: Final = {"faults", "log_max", "upload_host", "token_key"}


def read_config(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`config`: fields of `Config`; `trust_origin` is the list of origins that are trusted."""
    unknown = sorted(raw.keys() - _CONFIG)
    if unknown:
        raise Invalid(f"{where}: unknown {', '.join(unknown)}")
    if "trust_origin" in raw:
        list_of(as_text)(raw["trust_origin"], f"{where}.trust_origin")
    config = {**QUICK, **raw}
    try:
        _config(config, lambda text: text)
    except Exception as error:
        raise Invalid(f"{where}: {error}") from None
    return config


def _config(raw: Mapping[str, Any], fill: Any) -> Config:
    changes = dict(raw)
    if "trust_origin" in changes:
        trusted = frozenset(fill(origin) for origin in changes["trust_origin"])
        changes["trust_origin"] = trusted.__contains__
    return Config(**changes)


def make_config(raw: Mapping[str, Any], names: Names) -> Config:
    """The `Config` a scenario asks for."""
    return _config(raw, names.fill)


def read_keychain(raw: object, where: str) -> dict[str, str]:
    """`keychain`: fields of `Credentials`, or `error` for a broken one."""
    fields = Fields(raw, where)
    keys = ("username", "password", "identity_token", "registry_token", "error")
    found = {key: fields.take(key, as_text) for key in keys if key in fields}
    fields.end()
    return found


def read_switches(raw: object, where: str) -> dict[str, Any]:
    """`switches`: fields of `RegistryOptions`, enums by their value."""
    switches: dict[str, Any] = {}
    for key, value in as_object(raw, where).items():
        if key not in _OPTIONS or key in _NO_SWITCHES:
            raise Invalid(f"{where}: unknown {key}")
        switches[key] = _switch(key, value, f"{where}.{key}")
    return switches


def _switch(key: str, value: object, where: str) -> Any:
    default = _OPTIONS[key]
    if key == "grants":
        return list_of(_grant)(value, where)
    if key in ("users", "identity_tokens"):
        return object_of(as_text)(value, where)
    if isinstance(default, enum.Enum):
        try:
            return type(default)(value)
        except ValueError:
            raise Invalid(f"{where}: {value!r} is none of {', '.join(m.value for m in type(default))}") from None
    if isinstance(default, bool) or key == "oci_subject":
        return as_flag(value, where)
    if isinstance(default, int):
        return None if value is None and key == "expires_in" else as_number(value, where)
    if isinstance(default, tuple):
        return list_of(as_text)(value, where)
    return as_text(value, where)


def _grant(raw: object, where: str) -> Grant:
    fields = Fields(raw, where)
    actions = fields.maybe("actions", list_of(as_text))
    changes = {key: fields.take(key, as_text) for key in ("user", "repository") if key in fields}
    fields.end()
    grant = Grant(**changes)
    return grant if actions is None else attrs.evolve(grant, actions=actions)


def make_options(switches: Mapping[str, Any], names: Names) -> RegistryOptions:
    """The fake registry's options; realm, grants and warnings may have words in braces."""
    changes = dict(switches)
    for key, value in switches.items():
        if isinstance(value, str):
            changes[key] = names.fill(value)
        elif key == "grants":
            changes[key] = tuple(attrs.evolve(g, repository=names.fill(g.repository)) for g in value)
    return RegistryOptions(upload_host=names.fill("{elsewhere.host}"), **changes)


def furnish(registry: FakeRegistry, has: Mapping[str, tuple[str, ...]], names: Names) -> None:
    """Put in place what a registry has beforehand."""
    for repository, items in has.items():
        for name in items:
            item = names.contents[name]
            if item.is_manifest:
                registry.put_manifest(names.fill(repository), item.content)
            else:
                registry.put_blob(names.fill(repository), item.content, item.digest.algorithm)
