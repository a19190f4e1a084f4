"""``python -m ckptrules`` is the console script."""

import sys

from ckptrules.cli import main

if __name__ == "__main__":  # a process that is spawned imports it again
    sys.exit(main())
