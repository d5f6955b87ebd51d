"""How a folder is written all or nothing: into a temporary neighbour, then renamed.

Knows nothing about what is written.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `target` when the block ends well and vanishes when it raises.

    An existing `target` is replaced only then. The temporary name starts with a dot, so that a reader of
    the parent folder can pass over what a killed process left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        folder.chmod(0o755)
        yield folder
        if target.exists():
            retired = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
            os.replace(target, retired / target.name)
            os.replace(folder, target)
            shutil.rmtree(retired)
        else:
            os.replace(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
