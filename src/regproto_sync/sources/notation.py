"""How users name a source: a path, or skopeo's and crane's notation.

    PATH[:NAME]                  a layout folder or an archive, which is looked into
    oci:PATH[:NAME]              an OCI layout folder
    oci-archive:PATH[:NAME]      an OCI layout in a tar
    docker-archive:PATH[:NAME]   what `docker save` writes; NAME is repository:tag, or @N for the Nth image

`-` in the place of PATH is standard input, where an archive is meant.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Final

import attrs

from regproto._model.errors import ContentError, printable


class SourceNotFound(ContentError):
    """There is nothing at the path of the source."""


class Form(enum.Enum):
    """The kinds of source that a name can ask for."""

    ANY = ""
    FOLDER = "oci"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_ARCHIVE = "docker-archive"


@attrs.frozen(kw_only=True)
class SourceName:
    """A source as a user names it."""

    form: Form = Form.ANY
    path: Path | None
    """None: standard input."""
    image: str | None = None
    """Which of its images."""


STANDARD_INPUT: Final = "-"
_FORMS: Final = {form.value: form for form in Form if form.value}


def parse_source(source: str | os.PathLike[str]) -> SourceName:
    """The form, path and image that a source's name means; a path object is a path and nothing else.

    Raises:
        SourceNotFound: no part of it is an existing path.
        ContentError: a folder is to come from standard input.
    """
    if not isinstance(source, str):
        return SourceName(path=Path(source))
    form, text = _form(source)
    if text == STANDARD_INPUT or text.startswith(f"{STANDARD_INPUT}:"):
        if form is Form.FOLDER:
            raise ContentError("standard input can't be a folder: oci-archive:- reads an OCI layout in a tar")
        _, colon, image = text.partition(":")
        return SourceName(form=form, path=None, image=image if colon else None)
    path, name = split_source(text)
    return SourceName(form=form, path=path, image=name)


def is_standard_input(source: str) -> bool:
    """True if this names an archive on standard input."""
    return _form(source)[1].partition(":")[0] == STANDARD_INPUT


def _form(source: str) -> tuple[Form, str]:
    """The form that is told, and the rest."""
    prefix, colon, rest = source.partition(":")
    return (_FORMS[prefix], rest) if colon and prefix in _FORMS else (Form.ANY, source)


def split_source(text: str) -> tuple[Path, str | None]:
    """The path and name that `PATH` or `PATH:NAME` means.

    Both may hold colons. A path that exists as it stands wins; else the longest part before a colon that exists.

    Raises:
        SourceNotFound: no part of it is an existing path.
    """
    path: str = text
    name: str | None = None
    while path:
        try:
            if Path(path).exists():
                return Path(path), name
        except (OSError, ValueError):
            pass  # Too long for a path, or with a zero byte in it; what stands before the colon may be one.
        path, _, rest = path.rpartition(":")
        name = rest if name is None else f"{rest}:{name}"
    raise SourceNotFound(f"{printable(text)}: no such file or directory")
