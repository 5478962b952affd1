"""`regproto attach` and `regproto referrers`."""

from __future__ import annotations

import argparse
from typing import Any, Final

from regproto import Guarantee, Referrers, ReferrersUpdate
from regproto._model.errors import printable
from regproto_sync.cli.artifact import add_annotation_option, read_annotations
from regproto_sync.cli.output import Output, plain, say
from regproto_sync.cli.run import CODES_HELP, add_registry_options, perform
from regproto_sync.sources.artifact import UNKNOWN_ARTIFACT
from regproto_sync.sources.attachments import Attached

_ATTACH_HELP: Final = """\
Attach files to an image or artifact, and print the attachment's name by digest.

FILE is a file or a folder, with its media type after a colon if that is told. All of them are one attachment;
with --each every one is an attachment of its own.

A registry with the referrers API lists what is attached itself. Elsewhere the list is in a tag, sha256-<digest>,
that every client reads and rewrites. No update of that list is lost, of others or of ours, as long as no client
waits longer than 0.5 seconds between reading it and writing it, and no write takes effect later than 1.5 seconds
after it was sent: this command looks again after these two seconds, and says how sure it is."""

_SURE: Final = {
    Guarantee.API: "listed by the registry",
    Guarantee.CONDITIONAL: "listed; the registry refuses writes that would lose others'",
    Guarantee.VERIFIED: "listed; looked again, and it is still there",
}
_UNSURE: Final = {
    Guarantee.CONTENDED: "listed at the last look, but others keep changing the list: look again with `referrers`",
    Guarantee.WRITTEN: "listed; whether somebody overwrote that at once was not looked at",
    Guarantee.UNLISTED: "NOT listed: the registry has no referrers API, and --no-fallback was given",
}


def add(commands: Any) -> None:
    """Adds the subcommands to a parser's."""
    attach = commands.add_parser(
        "attach",
        help="attach files to an image",
        description=_ATTACH_HELP,
        epilog=CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    attach.add_argument("reference", metavar="REFERENCE", help="HOST/REPOSITORY[:TAG] or HOST/REPOSITORY@DIGEST")
    attach.add_argument("files", metavar="FILE[:MEDIA_TYPE]", nargs="*")
    attach.add_argument(
        "--artifact-type", metavar="TYPE", default=UNKNOWN_ARTIFACT, help="what kind of attachment it is, a media type"
    )
    attach.add_argument("--media-type", metavar="TYPE", default="", help="of the files that come without one")
    add_annotation_option(attach)
    attach.add_argument("--each", action="store_true", help="one attachment for each FILE; the list is written once")
    attach.add_argument("--no-fallback", action="store_true", help="keep no list in a tag where there is no API")
    attach.add_argument("--no-look-again", action="store_true", help="two seconds sooner, and not sure of that list")
    add_registry_options(attach)
    attach.set_defaults(run=_attach)

    listing = commands.add_parser(
        "referrers",
        help="list what is attached to an image",
        description="List what is attached to an image or artifact: digest, type, size and annotations of each.",
        epilog=CODES_HELP,
        allow_abbrev=False,
    )
    listing.add_argument("reference", metavar="REFERENCE", help="HOST/REPOSITORY[:TAG] or HOST/REPOSITORY@DIGEST")
    listing.add_argument("--artifact-type", metavar="TYPE", default="", help="only attachments of this type")
    add_registry_options(listing)
    listing.set_defaults(run=_referrers)


def _attach(options: argparse.Namespace) -> int:
    output = Output(json=options.json, quiet=options.quiet)

    def attached(done: Attached) -> None:
        repository = done.result.repository
        if options.json:
            fields = plain(done.result)
            del fields["error"]
            names = [f"{repository}@{digest}" for digest in done.digests]
            output.emit("result", {**fields, "subject": plain(done.subject), "references": names})
        else:
            for digest in done.digests:
                output.show(f"{repository}@{digest}")
        for listed in done.result.listed:
            _tell(listed, options.quiet)

    arguments = {
        "reference": options.reference,
        "files": options.files,
        "artifact_type": options.artifact_type,
        "media_type": options.media_type,
        "annotations": read_annotations(options),
        "each": options.each,
    }
    choices = {
        "referrers_fallback": not options.no_fallback,
        "referrers_look_again": not options.no_look_again,
    }
    return perform(options, output, "attach", arguments, attached, choices)


def _tell(listed: ReferrersUpdate, quiet: bool) -> None:
    """Say how sure the list is; what is not sure is said in any case."""
    sure = _SURE.get(listed.guarantee)
    if sure is not None and not listed.unsure:
        if not quiet:
            say(f"{listed.subject}: {sure}")
        return
    text = sure or _UNSURE[listed.guarantee]
    if listed.unsure:
        text += "; but a write took too long, and may yet overwrite what others wrote: look with `referrers`"
    say(f"regproto: warning: {listed.subject}: {text}")


def _referrers(options: argparse.Namespace) -> int:
    output = Output(json=options.json, quiet=options.quiet)

    def listed(found: Referrers) -> None:
        if options.json:
            output.emit("result", {"outcome": "listed", **plain(found)})
            return
        for entry in found.entries:
            annotations = "".join(f" {printable(f'{k}={v}', 300)}" for k, v in sorted(entry.annotations.items()))
            output.show(f"{entry.digest} {entry.artifact_type or '-'} {entry.size}{annotations}")

    arguments = {"reference": options.reference, "artifact_type": options.artifact_type}
    return perform(options, output, "referrers", arguments, listed)
