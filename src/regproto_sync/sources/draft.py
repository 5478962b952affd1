"""Drafts (`PushPlan.draft`) for the bundled drivers: each makes the rest of a plan from streams."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from regproto._model.messages import Manifests, NeedManifests, NoManifests
from regproto.driving import reason


@runtime_checkable
class Draft(Protocol):
    """Makes manifests of streams that are there."""

    def make(self, need: NeedManifests) -> Manifests:
        """The rest of the plan. Called in a thread of the driver's; what it raises is the push's error."""
        ...


def make(need: NeedManifests) -> Manifests | NoManifests:
    """The answer to `need`."""
    if not isinstance(need.draft, Draft):
        return NoManifests(id=need.id, error="there is nothing at hand to make a manifest with")
    try:
        return need.draft.make(need)
    except Exception as error:
        return NoManifests(id=need.id, error=reason(error))
