"""`python -m regproto_sync` is the `regproto` command."""

import sys

from regproto_sync.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
