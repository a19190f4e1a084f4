"""``python -m ckptrules`` is the console script."""

import sys

from ckptrules.cli import main

if __name__ == "__main__":  # a spawned process imports this file, too
    sys.exit(main())
