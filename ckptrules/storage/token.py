"""A file that shows whether others see the same folder as this process does."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator

from ckptrules.engine.state_folder import STATE
from ckptrules.storage.reading import NO_TRICKS
from ckptrules.storage.state import WORK, open_directory


@contextlib.contextmanager
def token(outputs_dir: str) -> Iterator[str]:
    """Lay an empty file that nobody can guess into the workplace, and give its path; take it away again.

    What had to be made for it goes as well. Under the lock, another run clears the workplace: it may be gone before.
    """
    made = [path for path in (WORK, STATE) if not os.path.lexists(os.path.join(outputs_dir, path))]
    name = f"token-{secrets.token_hex(16)}"
    with open_directory(outputs_dir, WORK, make=True) as folder:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_TRICKS, 0o600, dir_fd=folder))
        try:
            yield os.path.join(os.path.abspath(outputs_dir), WORK, name)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)
            for path in made:
                with contextlib.suppress(OSError):  # it holds something by now
                    os.rmdir(os.path.join(outputs_dir, path))
