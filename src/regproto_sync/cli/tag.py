"""`regproto tag`."""

from __future__ import annotations

import argparse
from typing import Any

from regproto import PushResult
from regproto_sync.cli.output import Output
from regproto_sync.cli.run import CODES_HELP, add_registry_options, perform


def add(commands: Any) -> None:
    """Adds the subcommand to a parser's."""
    tag = commands.add_parser(
        "tag",
        help="put further tags on what is in a registry",
        description="Put further tags on what is in a registry already, and print its name by digest.",
        epilog=CODES_HELP,
        allow_abbrev=False,
    )
    tag.add_argument("reference", metavar="REFERENCE", help="HOST/REPOSITORY[:TAG] or HOST/REPOSITORY@DIGEST")
    tag.add_argument("tags", metavar="TAG", nargs="+")
    add_registry_options(tag)
    tag.set_defaults(run=_tag)


def _tag(options: argparse.Namespace) -> int:
    output = Output(json=options.json, quiet=options.quiet)

    def tagged(result: PushResult) -> None:
        output.pushed(options.reference, result)

    arguments = {"reference": options.reference, "tags": options.tags}
    return perform(options, output, "tag", arguments, tagged)
