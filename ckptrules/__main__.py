"""``python -m ckptrules`` is the console script."""

import sys

from ckptrules.cli import main

sys.exit(main())
