"""How a folder or a file is written all or nothing: into a temporary neighbour, then renamed.

Knows nothing about what is written.
"""

import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsebert.errors import ConfigError

LEFTOVER_AGE_S = 3600.0  # no write takes that long


@contextmanager
def new_folder(target: Path, *, marker: str, kind: str) -> Iterator[Path]:
    """Give an empty folder that becomes `target` when the block ends well and vanishes when it raises.

    An existing `target` is replaced only then, and only when it is empty or holds the file `marker`, by which a
    `kind` is known; otherwise raises ConfigError at once, as it does when the place cannot be written to. The
    temporary name starts with a dot, so that a reader of the parent folder can pass over what a killed process
    left behind; leftovers of the same target are removed after an hour. A `target` that was set aside by a process
    killed before the new one took its place is put back first.
    """
    with _telling(target):
        _restore(target)
        check_replaceable(target, marker=marker, kind=kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        folder.chmod(0o755)
        _remove_leftovers(target, time.time())
        yield folder
        _flush(folder)
        _replace(target, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def write_whole(target: Path, text: str) -> None:
    """Write a file all or nothing, replacing one that is there."""
    part = _part_of(target)
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _part_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def check_file_writable(target: Path, flag: str) -> None:
    """Raise ConfigError, before the work, when `write_whole` could not write `target`, which is the value of `flag`."""
    check_writable(target, flag)  # first: after it what is there can be looked at
    if target.is_dir():
        raise ConfigError(f"{flag} {target} is a folder; name a file, such as {target / 'table.json'}")
    if not target.parent.is_dir():
        raise ConfigError(f"{flag} {target} is in a folder that does not exist; make {target.parent} first")


def check_writable(target: Path, flag: str = "--output") -> None:
    """Raise ConfigError where nothing called `target` could be written; told before the work, not after.

    What is tried is a temporary file, in the folder of `target` or the one in which that would be made.
    """
    folder = next(parent for parent in target.absolute().parents if _is_there(parent))
    with _telling(target, flag, folder), tempfile.NamedTemporaryFile(dir=folder, prefix=f".{target.name}."):
        pass


def check_replaceable(target: Path, *, marker: str, kind: str) -> None:
    """Raise ConfigError when `target` is there and neither empty nor a `kind`, known by its file `marker`.

    So it does when the folder `target` cannot be looked into.
    """
    if not _is_there(target):
        return
    with _telling(target):
        if target.is_dir() and (not any(target.iterdir()) or (target / marker).is_file()):
            return
    raise ConfigError(
        f"{target} exists and is no {kind} (it has no {marker}), so it is not replaced; choose another --output"
    )


def _is_there(path: Path) -> bool:
    """Not so in a folder that may not be entered, of which `Path.exists` raises."""
    try:
        return path.exists()
    except PermissionError:
        return False


@contextmanager
def _telling(target: Path, flag: str = "--output", folder: Path | None = None) -> Iterator[None]:
    """Raises ConfigError where the system refuses the block something in `folder`, or in the one that it names."""
    try:
        yield
    except OSError as error:
        where = folder or error.filename
        raise ConfigError(f"{target} cannot be written ({error.strerror}: {where}); choose another {flag}") from error


def _replace(target: Path, folder: Path) -> None:
    if not target.exists():
        os.replace(folder, target)
        return
    retired = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    os.replace(target, retired / target.name)
    try:
        os.replace(folder, target)
    except BaseException:
        os.replace(retired / target.name, target)
        retired.rmdir()
        raise
    shutil.rmtree(retired)


def _flush(folder: Path) -> None:
    """Bring everything below `folder` to the disk, so that after a power cut a renamed folder is not empty."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_leftovers(target: Path, now_s: float) -> None:
    for path in _temporaries(target):
        if now_s - path.stat().st_mtime > LEFTOVER_AGE_S:
            shutil.rmtree(path, ignore_errors=True)


def _restore(target: Path) -> None:
    retired = [path / target.name for path in _temporaries(target) if (path / target.name).is_dir()]
    if retired and not target.exists():
        newest = max(retired, key=lambda path: path.parent.stat().st_mtime)
        os.replace(newest, target)
        newest.parent.rmdir()


def _temporaries(target: Path) -> list[Path]:
    """Temporary folders of this target, and not of another one whose name goes on after a dot."""
    prefix = f".{target.name}."
    folders = target.parent.glob(f"{glob.escape(prefix)}*")
    return [path for path in folders if path.is_dir() and "." not in path.name.removeprefix(prefix)]
