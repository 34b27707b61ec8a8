"""``python -m noobly`` is the command ``noobly``."""

import sys

from noobly.cli import main

if __name__ == "__main__":
    sys.exit(main())
