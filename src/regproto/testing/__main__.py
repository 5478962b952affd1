"""Runs the command as `python -m regproto.testing`."""

import sys

from regproto.testing._check_driver._command import main

if __name__ == "__main__":
    sys.exit(main())
