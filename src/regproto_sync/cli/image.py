"""`regproto push-image`, and the options of whatever compresses layers on their way."""

from __future__ import annotations

import argparse
import json
from typing import Any

from regproto import ContentError, LocalProtocolError, PushResult
from regproto._model.errors import printable
from regproto._model.manifest import MANIFEST_MAX_BYTES
from regproto_sync.cli.output import Output
from regproto_sync.cli.run import CODES_HELP, Misuse, add_registry_options, perform
from regproto_sync.sources.compress import LEVELS, check_compression
from regproto_sync.sources.notation import STANDARD_INPUT

_HELP = """\
Push an image of layers that are made on their way, and print its name by digest.

LAYER is a plain tar, the lowest layer first; with - one of them is read from standard input. It is compressed and
hashed while it is sent, so memory stays small and no copy is written. Therefore it can't be sent again: a fault that
takes more of it than is kept ends the push. With --spool it is kept in a private temporary file, and can be."""


def add(commands: Any) -> None:
    """Adds the subcommand to a parser's."""
    image = commands.add_parser(
        "push-image",
        help="push an image of plain tars",
        description=_HELP,
        epilog=CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    image.add_argument("reference", metavar="REFERENCE", help="HOST/REPOSITORY[:TAG]")
    image.add_argument("layers", metavar="LAYER", nargs="+")
    image.add_argument("--config", metavar="FILE", help="the image's config, JSON; what it says of layers is not read")
    image.add_argument("-t", "--tag", action="append", default=[], dest="tags", help="a further tag; may be repeated")
    add_compression_options(image, "gzip")
    add_registry_options(image)
    image.set_defaults(run=_push_image)


def add_compression_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Adds the options of whatever makes layers on their way."""
    shown = f" (default: {default})" if default else ""
    parser.add_argument(
        "--compression", choices=tuple(LEVELS), default=default, help=f"of plain layers, while they are sent{shown}"
    )
    parser.add_argument("--level", type=int, metavar="N", help="of the compression (default: its usual one)")
    parser.add_argument(
        "--spool", action="store_true", help="make layers in a temporary file first, so that they can be sent again"
    )


def check_compression_options(options: argparse.Namespace) -> None:
    """Raises `Misuse` if they don't go together."""
    if options.compression is None:
        if options.level is not None or options.spool:
            raise Misuse("--level and --spool go with --compression")
        return
    try:
        check_compression(options.compression, options.level)
    except LocalProtocolError as error:
        raise Misuse(error) from None


def layer_of(file: str, options: argparse.Namespace, media_type: str = "") -> Any:
    """The layer that is made of a file. Raises `Misuse`."""
    from regproto_sync.sources.layers import Layer

    if file == STANDARD_INPUT and options.password_stdin:
        raise Misuse("standard input can't be both the password and a layer")
    check_compression_options(options)
    compression = options.compression or "none"
    try:
        return Layer.stream(file, compression=compression, level=options.level, media_type=media_type)
    except ContentError as error:
        raise Misuse(error) from None


def _push_image(options: argparse.Namespace) -> int:
    if options.layers.count(STANDARD_INPUT) > 1:
        raise Misuse("only one layer can be read from standard input")
    output = Output(json=options.json, quiet=options.quiet)

    def pushed(result: PushResult) -> None:
        output.pushed(options.reference, result)

    arguments = {
        "image_config": _config(options.config) if options.config is not None else {},
        "layers": [layer_of(file, options) for file in options.layers],
        "reference": options.reference,
        "tags": options.tags,
        "spool": options.spool,
    }
    return perform(options, output, "push_image", arguments, pushed)


def _config(path: str) -> dict[str, Any]:
    shown = printable(path)
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(MANIFEST_MAX_BYTES))
    except OSError as error:
        raise Misuse(f"{shown}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise Misuse(f"{shown}: is not JSON") from None
    if not isinstance(found, dict):
        raise Misuse(f"{shown}: is not a JSON object")
    return found
