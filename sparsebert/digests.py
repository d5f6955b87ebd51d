"""Are a bundle's files the ones its manifest names? Knows nothing about what the files mean."""

import hashlib
from pathlib import Path

from sparsebert.errors import BundleError, DigestError
from sparsebert.manifest import BUNDLE_FILES, MANIFEST_FILE, FileDigest, Manifest


def digest_file(path: Path) -> FileDigest:
    """The sha256 and size in bytes of a file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    return FileDigest(sha256=digest.hexdigest(), size_bytes=path.stat().st_size)


def unlisted_files(bundle: Path, manifest: Manifest) -> list[str]:
    """Names of files in the bundle's folder of which its manifest says nothing, so that no digest vouches for them."""
    found = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if not path.is_dir()}
    return sorted(found - {MANIFEST_FILE, *manifest.files})


def verify_files(bundle: Path, manifest: Manifest) -> None:
    """Check every file of the bundle against the manifest.

    Raises BundleError when a file is missing or unlisted, DigestError when one has other bytes.
    """
    unlisted = [name for name in BUNDLE_FILES if name not in manifest.files]
    if unlisted:
        raise BundleError(f"{bundle} has a manifest that does not list {', '.join(unlisted)}; export again")
    for name, expected in manifest.files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{bundle} lists {name!r}, which is outside the bundle; export again")
        path = bundle / name
        if not path.is_file():
            raise BundleError(f"{bundle} is not a complete bundle: {name} is missing; export or copy it again")
        found = digest_file(path)
        if found != expected:
            raise DigestError(
                f"{path} was altered: sha256 {found.sha256[:12]}… of {found.size_bytes} bytes, the manifest says "
                f"{expected.sha256[:12]}… of {expected.size_bytes} bytes; export or copy the bundle again"
            )
