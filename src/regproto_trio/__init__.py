"""`regproto` on trio: `push` for one image and its kin, `drive` for tasks that share a session."""

from regproto_trio._attach import attach, referrers
from regproto_trio._driver import Driver, drive, run_session
from regproto_trio._entries import (
    cancel_kept,
    push_artifact,
    push_image,
    push_layer,
    push_many,
    push_planned,
    put_manifest,
    tag,
)
from regproto_trio._push import push

__all__ = [
    "Driver",
    "attach",
    "cancel_kept",
    "drive",
    "push",
    "push_artifact",
    "push_image",
    "push_layer",
    "push_many",
    "push_planned",
    "put_manifest",
    "referrers",
    "run_session",
    "tag",
]
