"""`regproto push-artifact`, `regproto push-layer` and `regproto put-manifest`."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from regproto import PushResult
from regproto._model.errors import printable
from regproto._model.manifest import MANIFEST_MAX_BYTES
from regproto_sync.cli.image import add_compression_options, check_compression_options, layer_of
from regproto_sync.cli.output import Output
from regproto_sync.cli.run import CODES_HELP, Misuse, add_registry_options, perform
from regproto_sync.sources.notation import STANDARD_INPUT, SourceNotFound, split_source
from regproto_sync.sources.reading import read_at_most

_FILE_HELP: Final = """\
FILE is a file or a folder, with its media type after a colon if that is told. A folder becomes a gzipped tar that
is the same for the same content, and that oras unpacks."""


_LAYER_HELP: Final = """\
With --compression, FILE is a plain tar, which is compressed and hashed while it is sent; with - as FILE it is read
from standard input. Either can't be sent again after a fault, except with --spool."""


def add(commands: Any) -> None:
    """Adds the subcommands to a parser's."""
    artifact = _command(commands, "push-artifact", "push files as an artifact, as oras does", _FILE_HELP)
    artifact.add_argument("reference", metavar="REFERENCE", help="HOST/REPOSITORY[:TAG]")
    artifact.add_argument("files", metavar="FILE[:MEDIA_TYPE]", nargs="*")
    artifact.add_argument("--artifact-type", metavar="TYPE", help="what kind of artifact it is, a media type")
    add_annotation_option(artifact)
    _add_tags(artifact)
    add_registry_options(artifact)
    artifact.set_defaults(run=_push_artifact)

    layer = _command(commands, "push-layer", "push one layer or other blob alone", f"{_FILE_HELP}\n{_LAYER_HELP}")
    layer.add_argument("file", metavar="FILE[:MEDIA_TYPE]")
    layer.add_argument("repository", metavar="HOST/REPOSITORY")
    layer.add_argument("--media-type", metavar="TYPE", default="", help="by default that of an OCI layer")
    add_compression_options(layer, None)
    add_registry_options(layer)
    layer.set_defaults(run=_push_layer)

    manifest = _command(
        commands,
        "put-manifest",
        "put a manifest or index alone",
        "What the manifest names has to be in the repository already. With - as FILE it is read from standard input.",
    )
    manifest.add_argument("file", metavar="FILE")
    manifest.add_argument("reference", metavar="REFERENCE", help="HOST/REPOSITORY[:TAG] or HOST/REPOSITORY@DIGEST")
    manifest.add_argument("--media-type", metavar="TYPE", default="", help="by default what the manifest says itself")
    _add_tags(manifest)
    add_registry_options(manifest)
    manifest.set_defaults(run=_put_manifest)


def add_annotation_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--annotation`, whose values `read_annotations` reads."""
    parser.add_argument(
        "-a",
        "--annotation",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="annotations",
        help="of the manifest; may be repeated",
    )


def read_annotations(options: argparse.Namespace) -> dict[str, str]:
    """The annotations that `--annotation` gives. Raises `Misuse`."""
    found: dict[str, str] = {}
    for text in options.annotations:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise Misuse(f"--annotation {printable(text, 200)}: expected KEY=VALUE")
        found[key] = value
    return found


def _command(commands: Any, name: str, what: str, more: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"{what.capitalize()}, and print its name by digest.\n\n{more}",
        epilog=CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def _add_tags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-t", "--tag", action="append", default=[], dest="tags", help="a further tag; may be repeated")


def _push_artifact(options: argparse.Namespace) -> int:
    arguments = {
        "files": options.files,
        "reference": options.reference,
        "annotations": read_annotations(options),
        "tags": options.tags,
    }
    if options.artifact_type is not None:
        arguments["artifact_type"] = options.artifact_type
    return _perform(options, "push_artifact", arguments)


def _push_layer(options: argparse.Namespace) -> int:
    options.reference = options.repository
    arguments = {"layer": options.file, "repository": options.repository, "spool": options.spool}
    from_input = options.file == STANDARD_INPUT
    if from_input or options.compression is not None:
        if from_input:
            options.compression = options.compression or "none"
        file, media_type = (STANDARD_INPUT, "") if from_input else _split(options.file)
        arguments["layer"] = layer_of(file, options, options.media_type or media_type)
    elif options.media_type:
        raise Misuse("--media-type is for standard input or --compression; else write FILE:MEDIA_TYPE")
    else:
        check_compression_options(options)
    return _perform(options, "push_layer", arguments)


def _split(text: str) -> tuple[str, str]:
    try:
        path, media_type = split_source(text)
    except SourceNotFound as error:
        raise Misuse(error) from None
    return str(path), media_type or ""


def _put_manifest(options: argparse.Namespace) -> int:
    if options.file == STANDARD_INPUT and options.password_stdin:
        raise Misuse("standard input can't be both the password and the manifest")
    try:
        if options.file == STANDARD_INPUT:
            if sys.stdin is None:
                raise Misuse("standard input is closed")
            content = read_at_most(sys.stdin.buffer, MANIFEST_MAX_BYTES + 1)
        else:
            with open(options.file, "rb") as file:
                content = file.read(MANIFEST_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such file"
        raise Misuse(f"{printable(options.file)}: {reason}") from None
    arguments = {
        "content": content,
        "reference": options.reference,
        "media_type": options.media_type,
        "tags": options.tags,
    }
    return _perform(options, "put_manifest", arguments)


def _perform(options: argparse.Namespace, name: str, arguments: dict[str, Any]) -> int:
    output = Output(json=options.json, quiet=options.quiet)

    def pushed(result: PushResult) -> None:
        output.pushed(options.reference, result)

    return perform(options, output, name, arguments, pushed)
