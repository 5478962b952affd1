"""`regproto` on trio: `push` for one image, `drive` for tasks that share a session."""

from regproto_trio._driver import Driver, drive, run_session
from regproto_trio._push import push

__all__ = ["Driver", "drive", "push", "run_session"]
