"""News on its way to the driver: the newest of each subject, in the order the subjects came up."""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

from regproto._model.manifest import Descriptor
from regproto._model.messages import Notice, Status

_OF_THEIR_OWN: Final = frozenset({Status.RESUMED, Status.NOT_RESUMED, Status.RESTARTED})
"""Statuses whose news is not replaced by progress of the upload."""


@attrs.define(eq=False, repr=False)
class Notices:
    """A queue in which later news of a subject takes the place of earlier news not yet polled."""

    order: deque[str] = attrs.field(factory=deque)
    newest: dict[str, Notice] = attrs.field(factory=dict)
    warned: dict[str, None] = attrs.field(factory=dict)
    """Texts of warnings shown already, in order."""

    def add(self, notice: Notice) -> None:
        """Put a notice in, or in place of the waiting one of its subject."""
        self._put(notice.subject, notice)

    def _put(self, key: str, notice: Notice) -> None:
        if key not in self.newest:
            self.order.append(key)
        self.newest[key] = notice

    def tell(self, subject: str, descriptor: Descriptor, status: Status, sent_bytes: int = 0, text: str = "") -> None:
        """Add news of one blob or manifest, by its digest or tag."""
        self._put(
            f"{subject} {status.value}" if status in _OF_THEIR_OWN else subject,
            Notice(
                status=status,
                subject=subject,
                media_type=descriptor.media_type,
                sent_bytes=sent_bytes,
                size_bytes=descriptor.size,
                text=text,
            ),
        )

    def left_open(self, registry: str, push_id: int, count: int) -> None:
        """Add news that a push is over, and that so many upload sessions stay open."""
        what = "1 upload session stays open, or may" if count == 1 else f"{count} upload sessions stay open, or may"
        text = f"{what}: the registry deletes what nobody goes on with after a while"
        notice = Notice(status=Status.LEFT_OPEN, subject=registry, text=text, push_id=push_id)
        self._put(f"left open {push_id}", notice)

    def warn(self, registry: str, text: str, limit: int) -> None:
        """Add a registry's warning, once per text."""
        if text not in self.warned and len(self.warned) < limit:
            self.warned[text] = None
            self._put(text, Notice(status=Status.WARNING, subject=registry, text=text))

    def take(self) -> Notice | None:
        """The next notice, if there is one."""
        return self.newest.pop(self.order.popleft()) if self.order else None
