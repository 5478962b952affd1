"""`regproto push`."""

from __future__ import annotations

import argparse
from typing import Any, Final

from regproto import PushResult
from regproto_sync._cli_run import CODES_HELP, add_registry_options, perform
from regproto_sync._output import Output

_SOURCE_HELP: Final = """\
SOURCE is an OCI image layout directory, or DIRECTORY:NAME where its index.json has several entries (NAME is
their org.opencontainers.image.ref.name). REFERENCE is HOST/REPOSITORY[:TAG] or HOST/REPOSITORY@DIGEST."""


def add(commands: Any) -> None:
    """Adds the subcommand to a parser's."""
    push = commands.add_parser(
        "push",
        help="push an image",
        description=f"Push an image, and print its name by digest.\n\n{_SOURCE_HELP}",
        epilog=CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    push.add_argument("source", metavar="SOURCE")
    push.add_argument("reference", metavar="REFERENCE")
    push.add_argument("-t", "--tag", action="append", default=[], dest="tags", help="a further tag; may be repeated")
    push.add_argument(
        "--mount-from",
        action="append",
        default=[],
        metavar="REPOSITORY",
        help="a repository ([HOST/]NAME) that may hold some of the blobs already; may be repeated",
    )
    add_registry_options(push)
    push.add_argument("--allow-nondistributable", action="store_true", help="send non-distributable layers too")
    push.add_argument("--sparse", action="store_true", help="leave out children of an index that SOURCE lacks")
    push.set_defaults(run=_push)


def _push(options: argparse.Namespace) -> int:
    output = Output(json=options.json, quiet=options.quiet)

    def pushed(result: PushResult) -> None:
        output.pushed(options.reference, result)

    arguments = {
        "source": options.source,
        "reference": options.reference,
        "tags": options.tags,
        "mount_from": options.mount_from,
        "nondistributable": options.allow_nondistributable,
        "sparse": options.sparse,
    }
    return perform(options, output, "push", arguments, pushed)
