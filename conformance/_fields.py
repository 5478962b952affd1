"""Reading JSON strictly: a key that nobody asks for is an error, and so is a value of another type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Invalid(Exception):
    """A scenario that is not one: where, and what is wrong with it."""


class Fields:
    """One JSON object, whose keys are taken one by one; `end` complains about what is left.

    Args:
        raw: the object.
        where: how errors call it.
    """

    def __init__(self, raw: object, where: str) -> None:
        self.where = where
        self._left = dict(as_object(raw, where))

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str, read: Callable[[object, str], T], default: T | None = None) -> T:
        """The value of `key` as `read` has it; without the key `default`, and without that an error."""
        where = f"{self.where}.{key}"
        if key in self._left:
            return read(self._left.pop(key), where)
        if default is None:
            raise Invalid(f"{where} is missing")
        return default

    def maybe(self, key: str, read: Callable[[object, str], T]) -> T | None:
        """The value of `key` as `read` has it, or None without the key."""
        return read(self._left.pop(key), f"{self.where}.{key}") if key in self._left else None

    def many(self, key: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
        """The list of `key`, each entry as `read` has it; empty without the key."""
        return self.take(key, list_of(read)) if key in self._left else ()

    def mapping(self, key: str, read: Callable[[object, str], T]) -> dict[str, T]:
        """The object of `key`, each value as `read` has it; empty without the key."""
        return self.take(key, object_of(read)) if key in self._left else {}

    def end(self) -> None:
        """Nothing may be left."""
        if self._left:
            raise Invalid(f"{self.where}: unknown {', '.join(sorted(self._left))}")


def as_object(raw: object, where: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise Invalid(f"{where} must be an object, not {raw!r}")
    return raw


def as_text(raw: object, where: str) -> str:
    if not isinstance(raw, str):
        raise Invalid(f"{where} must be a string, not {raw!r}")
    return raw


def as_flag(raw: object, where: str) -> bool:
    if not isinstance(raw, bool):
        raise Invalid(f"{where} must be true or false, not {raw!r}")
    return raw


def as_count(raw: object, where: str) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < 0:
        raise Invalid(f"{where} must be a number from 0 on, not {raw!r}")
    return raw


def as_number(raw: object, where: str) -> float:
    if not isinstance(raw, (int, float)) or isinstance(raw, bool):
        raise Invalid(f"{where} must be a number, not {raw!r}")
    return raw


def as_range(raw: object, where: str) -> tuple[int, int]:
    """How many: one number, or the least and the most."""
    if isinstance(raw, list) and len(raw) == 2:
        least, most = (as_count(n, where) for n in raw)
        if least <= most:
            return least, most
    if isinstance(raw, list):
        raise Invalid(f"{where} must be a number or [least, most], not {raw!r}")
    count = as_count(raw, where)
    return count, count


def anything(raw: object, where: str) -> Any:
    return raw


def as_list(raw: object, where: str) -> list[Any]:
    if not isinstance(raw, list):
        raise Invalid(f"{where} must be a list, not {raw!r}")
    return raw


def list_of(read: Callable[[object, str], T]) -> Callable[[object, str], tuple[T, ...]]:
    """A reader of lists of what `read` reads."""
    return lambda raw, where: tuple(read(item, f"{where}[{n}]") for n, item in enumerate(as_list(raw, where)))


def object_of(read: Callable[[object, str], T]) -> Callable[[object, str], dict[str, T]]:
    """A reader of objects with values that `read` reads."""
    return lambda raw, where: {key: read(item, f"{where}.{key}") for key, item in as_object(raw, where).items()}


def one_of(values: Iterable[str]) -> Callable[[object, str], str]:
    """A reader of one of these strings."""
    allowed = sorted(values)

    def read(raw: object, where: str) -> str:
        if raw not in allowed:
            raise Invalid(f"{where} must be one of {', '.join(allowed)}, not {raw!r}")
        return as_text(raw, where)

    return read
