import pytest
from safetensors import SafetensorError

from locking import locked_folder, run_locked_out
from sparsebert.errors import CheckpointError, TrainingError
from training.faults import disk_errors, memory_errors


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_out_of_memory_names_what_to_lower(error):
    cure = "out of memory: split each batch with --accumulation 4 and run again"
    with pytest.raises(TrainingError, match=cure), memory_errors():
        raise error


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), memory_errors():
        raise RuntimeError("shapes do not match")


def test_what_is_half_written_goes(tmp_path):
    part, whole = tmp_path / "file.part", tmp_path / "file"
    whole.write_text("old")
    with (
        pytest.raises(CheckpointError, match="file cannot be written .*No space left.* what was saved before is whole"),
        disk_errors(whole, part=part),
    ):
        part.write_text("half")
        raise OSError(28, "No space left on device")
    assert not part.exists()
    assert whole.read_text() == "old"


def test_only_what_the_block_made_is_removed(tmp_path):
    theirs = tmp_path / "notes.csv"
    theirs.write_text("of the user")
    for names in ({"path": theirs}, {"path": tmp_path / "file", "part": theirs}):
        with pytest.raises(CheckpointError, match="cannot be written"), disk_errors(**names):
            raise FileExistsError(17, "File exists")
    assert theirs.read_text() == "of the user"


def test_libraries_have_errors_of_their_own(tmp_path):
    whole = "cannot be written .*; what was saved before is whole"
    with pytest.raises(CheckpointError, match=whole), disk_errors(tmp_path):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    assert tmp_path.exists()


def test_commands_tell_a_folder_that_may_not_be_entered():
    imports = "import sys, training.cli, training.prune_cli, training.sensitivity_cli, training.unstructured.cli\n"
    imports += "import training.run, training.sweep.cli, training.unstructured.stage\nfrom sparsebert.cli import run"
    with locked_folder() as folder:
        commands = [
            ["train", "--output", str(folder)],
            ["train", "--output", str(folder / "run")],
            ["baseline", "movement", "--output", str(folder)],
            ["prune", "dense", "--output", str(folder / "p" / "sparse")],
            ["prune", "dense", "--output", str(folder)],
            ["sensitivity", "dense", "--output", str(folder / "s.json")],
            ["sensitivity", "dense", "--output", str(folder / "p" / "s.json")],
            ["sweep", "--output", str(folder), "--seeds", "1"],
        ]
        done = run_locked_out(imports, f"for words in {commands!r}:\n    assert run(words) == 1")
    denied = "cannot be written (Permission denied: LOCKED); choose another --output"
    assert done.stderr.replace(str(folder), "LOCKED").splitlines() == [
        f"sparsebert train: LOCKED/.work/snapshot {denied}",
        "sparsebert train: --output LOCKED/run cannot be written (Permission denied); choose another",
        f"sparsebert baseline: LOCKED/.work/snapshot {denied}",
        f"sparsebert prune: LOCKED/p/sparse {denied}",
        f"sparsebert prune: LOCKED {denied}",
        f"sparsebert sensitivity: LOCKED/s.json {denied}",
        f"sparsebert sensitivity: LOCKED/p/s.json {denied}",
        f"sparsebert sweep: LOCKED/results.csv {denied}",
    ]
