"""The words in braces, which stand for what differs from one run to the next.

{layer} {layer.hex} {layer.size}     digest and size of a piece of content
{repo} {repo/base}                   the repository that is pushed to, and others of the same run
{registry} {host}                    the registry's URL, and its host and port
{elsewhere} {elsewhere.host}         another origin the same registry answers at
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from conformance._content import Contents
from conformance._fields import Invalid

_WORD: Final = re.compile(r"\{([a-z][a-z0-9_./-]*)\}")


@attrs.frozen(kw_only=True)
class Names:
    """What the words mean in one run of one scenario."""

    contents: Contents
    prefix: str = "team/"
    """Of every repository's name."""
    registry: str = "https://registry.example"
    elsewhere: str = "https://uploads.example"

    def fill(self, text: str, where: str = "") -> str:
        """`text` with every word replaced. An unknown one is `Invalid`."""
        return _WORD.sub(lambda match: self._meaning(match[1], where or text), text)

    def _meaning(self, word: str, where: str) -> str:
        match word:
            case "repo":
                return f"{self.prefix}app"
            case "registry":
                return self.registry
            case "host":
                return self.registry.partition("://")[2]
            case "elsewhere":
                return self.elsewhere
            case "elsewhere.host":
                return self.elsewhere.partition("://")[2]
        if word.startswith("repo/"):
            return self.prefix + word.removeprefix("repo/")
        name, _, part = word.partition(".")
        item = self.contents.get(name)
        if item is not None and part in ("", "hex", "hex64", "size"):
            hex_ = item.digest.hex
            return {"": str(item.digest), "hex": hex_, "hex64": hex_[:64], "size": str(item.descriptor.size)}[part]
        raise Invalid(f"{where}: nothing is called {{{word}}}")
