"""News in words: one line for each event, digests cut, sizes rounded."""

from __future__ import annotations

from typing import Final

from regproto import Notice, Status

_SHORT_DIGEST: Final = len("sha256:") + 12


def line_of(notice: Notice) -> str | None:
    """One line for what ended or needs to be known; None for what is under way."""
    what = short(notice.subject)
    match notice.status:
        case Status.EXISTING | Status.UPLOADED:
            return f"{what} {notice.status.value} {size_text(notice.size_bytes)}"
        case Status.MOUNTED:
            return f"{what} mounted {size_text(notice.size_bytes)}" + (f" from {notice.text}" if notice.text else "")
        case Status.RESUMED:
            return f"{what} resumed: {size_text(notice.sent_bytes)} of {size_text(notice.size_bytes)} are there"
        case Status.SKIPPED | Status.FAILED | Status.RESTARTED | Status.NOT_RESUMED:
            return f"{what} {notice.status.value}" + (f": {notice.text}" if notice.text else "")
        case Status.RETRYING:
            return f"{what} again in {notice.delay_s:.1f} s: {notice.text}"
        case Status.LEFT_OPEN:
            return f"{notice.subject}: {notice.text}"
        case Status.WARNING:
            return f"{notice.subject} warns: {notice.text}"
        case Status.UPLOADING | Status.PROGRESS:
            return None


def short(subject: str) -> str:
    """A digest cut to what people compare; a tag whole."""
    return subject[:_SHORT_DIGEST] if ":" in subject else subject


def size_text(size_bytes: int) -> str:
    """A number of bytes for people."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
