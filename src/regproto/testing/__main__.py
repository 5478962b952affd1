"""Runs the command as `python -m regproto.testing`."""

import sys

from regproto.testing.driver_check.command import main

if __name__ == "__main__":
    sys.exit(main())
