"""`regproto push`."""

from __future__ import annotations

import argparse
from typing import Any, Final

from regproto import PushResult
from regproto_sync.cli.image import add_compression_options, check_compression_options
from regproto_sync.cli.output import Output, say
from regproto_sync.cli.run import CODES_HELP, Misuse, add_registry_options, perform
from regproto_sync.sources.notation import is_standard_input

_SOURCE_HELP: Final = """\
SOURCE is one of

  PATH[:NAME]                 an OCI image layout folder, or an archive: an OCI layout in a tar, or what
                              `docker save` writes; what it is, is looked at
  oci:PATH[:NAME]             an OCI image layout folder
  oci-archive:PATH[:NAME]     an OCI layout in a tar
  docker-archive:PATH[:NAME]  what `docker save` writes

NAME picks one of several images: an org.opencontainers.image.ref.name, or for docker's archives REPOSITORY:TAG
or @N for the Nth. With - as PATH an archive is read from standard input, into a private temporary file; what
is gzipped is unpacked into one too. REFERENCE is HOST/REPOSITORY[:TAG] or HOST/REPOSITORY@DIGEST."""


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
    push.add_argument("references", metavar="REFERENCE", nargs="+", help="several go into one registry, in one push")
    push.add_argument("-t", "--tag", action="append", default=[], dest="tags", help="a further tag; may be repeated")
    push.add_argument(
        "--mount-from",
        action="append",
        default=[],
        metavar="REPOSITORY",
        help="a repository ([HOST/]NAME) that may hold some of the blobs already; may be repeated",
    )
    add_compression_options(push, None)
    add_registry_options(push)
    push.add_argument("--allow-nondistributable", action="store_true", help="send non-distributable layers too")
    push.add_argument("--verify", action="store_true", help="read and compare all layers before anything is sent")
    push.add_argument("--sparse", action="store_true", help="leave out children of an index that SOURCE lacks")
    push.add_argument(
        "--resume", action="store_true", help="go on where this same command was stopped, even by a crash or power cut"
    )
    push.set_defaults(run=_push)


def _push(options: argparse.Namespace) -> int:
    output = Output(json=options.json, quiet=options.quiet)
    check_compression_options(options)
    if is_standard_input(options.source):
        if options.password_stdin:
            raise Misuse("standard input can't be both the password and the archive")
        if not options.quiet:
            say("regproto: standard input is kept in a temporary file until it is pushed")

    def pushed(results: PushResult | list[PushResult]) -> None:
        found = results if isinstance(results, list) else [results]
        for reference, result in zip(options.references, found, strict=True):
            output.pushed(reference, result)

    arguments: dict[str, Any] = {
        "tags": options.tags,
        "mount_from": options.mount_from,
        "nondistributable": options.allow_nondistributable,
        "sparse": options.sparse,
        "verify": options.verify,
    }
    first, *more = options.references
    if more:
        if options.resume:
            raise Misuse("--resume takes one reference")
        if options.compression is not None:
            raise Misuse("--compression takes one reference")
        arguments["images"] = [(options.source, reference) for reference in options.references]
        return perform(options, output, "push_many", arguments, pushed)
    arguments |= {"source": options.source, "reference": first, "resume": options.resume}
    arguments |= {"compression": options.compression, "level": options.level, "spool": options.spool}
    return perform(options, output, "push", arguments, pushed)
