import os
from pathlib import Path

import pytest

from locking import locked_folder, run_locked_out
from sparsebert.errors import ConfigError
from sparsebert.files import LEFTOVER_AGE_S, check_file_writable, check_writable, new_folder, write_whole


def writing(target):
    return new_folder(target, marker="a", kind="bundle")


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "models" / "sparse"
    with writing(target) as part:
        (part / "a").write_text("1")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in target.parent.iterdir()] == ["sparse"]


def test_an_error_leaves_the_old_folder(tmp_path):
    target = tmp_path / "sparse"
    with writing(target) as part:
        (part / "a").write_text("old")
    with pytest.raises(IsADirectoryError), writing(target) as part:
        (part / "a").write_text("new")
        part.read_text()
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]


def test_a_folder_is_replaced(tmp_path):
    target = tmp_path / "sparse"
    for text in ("old", "new"):
        with writing(target) as part:
            (part / "a").write_text(text)
            (part / text).write_text(text)
    assert sorted(path.name for path in target.iterdir()) == ["a", "new"]
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]


def test_what_is_no_bundle_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    message = r"exists and is no bundle \(it has no a\), so it is not replaced"
    with pytest.raises(ConfigError, match=message), writing(tmp_path):
        raise AssertionError("never reached")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_is_taken(tmp_path):
    target = tmp_path / "sparse"
    target.mkdir()
    with writing(target) as part:
        (part / "a").write_text("1")
    assert (target / "a").read_text() == "1"


def test_the_old_folder_comes_back_when_the_last_step_fails(tmp_path, monkeypatch):
    target = tmp_path / "sparse"
    with writing(target) as part:
        (part / "a").write_text("old")
    replace, calls = os.replace, []

    def fail_second(source, destination):
        calls.append(destination)
        if len(calls) == 2:
            raise OSError("disk gone")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fail_second)
    with pytest.raises(OSError, match="disk gone"), writing(target) as part:
        (part / "a").write_text("new")
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]


def test_leftovers_of_killed_runs_are_removed_after_an_hour(tmp_path):
    old, young = tmp_path / ".sparse.old", tmp_path / ".sparse.young"
    for folder in (old, young):
        folder.mkdir()
    then_s = young.stat().st_mtime - LEFTOVER_AGE_S - 60
    os.utime(old, (then_s, then_s))
    with writing(tmp_path / "sparse") as part:
        (part / "a").write_text("1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".sparse.young", "sparse"]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match="cannot be written .* choose another --output"),
        writing(tmp_path / "file" / "x"),
    ):
        raise AssertionError("never reached")


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    write_whole(tmp_path / "file", "text")
    check_file_writable(tmp_path / "file", "--out")
    assert (tmp_path / "file").read_text() == "text"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_leftovers_of_another_target_stay(tmp_path):
    running, own = tmp_path / ".sparse.v2.abcd1234", tmp_path / ".sparse.abcd1234"
    for folder in (running, own):
        folder.mkdir()
        os.utime(folder, (0, 0))
    with writing(tmp_path / "sparse") as part:
        (part / "a").write_text("1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".sparse.v2.abcd1234", "sparse"]


def test_what_a_killed_process_had_set_aside_comes_back(tmp_path):
    retired = tmp_path / ".sparse.abcd1234"
    (retired / "sparse").mkdir(parents=True)
    (retired / "sparse" / "a").write_text("old")
    os.utime(retired, (0, 0))
    with pytest.raises(IsADirectoryError), writing(tmp_path / "sparse") as part:
        part.read_text()
    assert (tmp_path / "sparse" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]


def test_a_place_is_tried_without_a_trace(tmp_path):
    check_writable(tmp_path / "new" / "sparse")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "sparse", Path("/proc/sparse")):
        with pytest.raises(ConfigError, match="sparse cannot be written .*; choose another --output"):
            check_writable(place)
    assert (tmp_path / "file").read_text() == "mine"


TRIES = """
folder = Path(sys.argv[1])
for check in (
    lambda: check_writable(folder / "sparse"),
    lambda: check_writable(folder / "p" / "sparse", "--teacher-cache"),
    lambda: check_file_writable(folder / "s.json", "--out"),
    lambda: check_file_writable(folder / "p" / "s.json", "--out"),
    lambda: check_replaceable(folder, marker="a", kind="bundle"),
    lambda: check_replaceable(folder / "sparse", marker="a", kind="bundle"),  # left to those that write
    lambda: new_folder(folder / "p" / "sparse", marker="a", kind="bundle").__enter__(),
):
    try:
        check()
    except ConfigError as error:
        print(str(error).replace(str(folder), "LOCKED"))
    else:
        print("nothing")
"""


def test_a_folder_that_may_not_be_entered_is_told():
    imports = "import sys\nfrom pathlib import Path\nfrom sparsebert.errors import ConfigError\n"
    imports += "from sparsebert.files import check_file_writable, check_replaceable, check_writable, new_folder"
    with locked_folder() as folder:
        done = run_locked_out(imports, TRIES, str(folder))
    assert (done.stderr, done.stdout.splitlines()) == (
        "",
        [
            "LOCKED/sparse cannot be written (Permission denied: LOCKED); choose another --output",
            "LOCKED/p/sparse cannot be written (Permission denied: LOCKED); choose another --teacher-cache",
            "LOCKED/s.json cannot be written (Permission denied: LOCKED); choose another --out",
            "LOCKED/p/s.json cannot be written (Permission denied: LOCKED); choose another --out",
            "LOCKED cannot be written (Permission denied: LOCKED); choose another --output",
            "nothing",
            "LOCKED/p/sparse cannot be written (Permission denied: LOCKED/p); choose another --output",
        ],
    )
