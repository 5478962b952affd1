"""Presence in the repositories, as answers showed it, and which pushes may rely on that.

A registry may collect its garbage, and others may delete, so an answer does not hold for ever: it is good for the
pushes that overlap in time the one that got it, and forgotten with the last of them. A push that only relied on it has
learned nothing. The goals of a push are another matter: its success rests on an answer that came after it was begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

import attrs

from regproto._engine.push_state import Known, PushState
from regproto._model.config import KNOWN_MAX
from regproto._model.digest import Digest


@attrs.define(eq=False, repr=False)
class Presence:
    """The blobs, manifests and tags that one session knows to be there."""

    known: dict[tuple[str, str], Known] = attrs.field(factory=dict)
    fading: deque[Known] = attrs.field(factory=deque)
    """Entries that no push under way has learned, in the order in which they will be forgotten."""
    next_id: int = 1
    """The id of the push that is begun next."""

    def learn(self, repository: str, reference: str, digest: Digest, pushes: Collection[PushState]) -> None:
        """Note that an answer to these pushes said that something is there."""
        key = repository, reference
        known = self.known.get(key)
        if known is None or not known.learners or known.digest != digest:
            known = self.known[key] = Known(key, digest)
        known.before = self.next_id
        known.learners += len(pushes)
        for work in pushes:
            work.learned.append(known)

    def forget(self, repository: str, digest: Digest) -> None:
        """Forget something that is not there after all."""
        self.known.pop((repository, digest), None)

    def holds(self, work: PushState, digest: Digest, tag: str = "") -> bool:
        """Whether a push may take something to be there, by its digest or under a tag."""
        known = self.known.get((work.plan.repository, tag or digest))
        if known is None or known.digest != digest:
            return False
        return work.id < (known.before if tag or digest in work.asked else known.good_for)

    def ended(self, work: PushState, oldest: int) -> None:
        """Note the end of a push: what it learned stays good for those under way now; `oldest` is their lowest id."""
        if oldest >= self.next_id:  # nobody is under way
            for everything in (self.known, self.fading, work.learned):
                everything.clear()
            return
        for known in work.learned:
            known.learners -= 1
            if not known.learners:
                known.good_for = self.next_id
                self.fading.append(known)
        work.learned.clear()
        fading = self.fading
        while fading and (fading[0].good_for <= oldest or len(fading) > KNOWN_MAX):
            known = fading.popleft()
            if self.known.get(known.key) is known:  # else it was learned again, or is not there after all
                del self.known[known.key]
