import pytest

from sparsebert.files import new_folder


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "models" / "sparse"
    with new_folder(target) as part:
        (part / "a").write_text("1")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in target.parent.iterdir()] == ["sparse"]


def test_an_error_leaves_the_old_folder(tmp_path):
    target = tmp_path / "sparse"
    with new_folder(target) as part:
        (part / "a").write_text("old")
    with pytest.raises(IsADirectoryError), new_folder(target) as part:
        (part / "a").write_text("new")
        part.read_text()
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]


def test_a_folder_is_replaced(tmp_path):
    target = tmp_path / "sparse"
    for text in ("old", "new"):
        with new_folder(target) as part:
            (part / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]
