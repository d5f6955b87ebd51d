"""What does code say of a folder that it may not enter? It is run as a user who is not the folder's."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What root may not do is tried as nobody, after the imports: where Python lies may be closed to others, too.
DROP = """
import os
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""


@contextmanager
def locked_folder() -> Iterator[Path]:
    """An empty folder that nobody but root enters, in one that all may enter (pytest's are closed to others)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0)
        yield folder
        folder.chmod(0o700)


def run_locked_out(imports: str, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `code` after `imports` in a process without root's rights, with `words` as its arguments."""
    program = f"{imports}\n{DROP}\n{code}"
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
