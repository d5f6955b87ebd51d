import os
import runpy
import subprocess
import sys

import pytest

from sparsebert.cli import COMMANDS, Command, run, run_command


def test_help_lists_every_command(capsys):
    assert run([]) == 0
    shown = capsys.readouterr().out
    assert all(command.word in shown for command in COMMANDS)


def test_unknown_word_is_a_usage_error(capsys):
    assert run(["prune-everything"]) == 2
    assert "unknown command 'prune-everything'" in capsys.readouterr().err


def test_wrong_flag_is_a_usage_error(capsys):
    assert run(["inspect", "--nope"]) == 2
    assert "usage: sparsebert inspect" in capsys.readouterr().err


def test_our_error_is_one_line_and_exit_code_1(tmp_path, capsys):
    assert run(["inspect", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("sparsebert inspect: ")
    assert "neither a model bundle" in error
    assert error.count("\n") == 1


def test_a_missing_extra_names_the_cure(tmp_path, monkeypatch, capsys):
    (tmp_path / "needs_more.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert run_command(Command(word="train", module="needs_more", extra="train", help=""), []) == 1
    assert "'sparsebert train' needs: pip install 'sparsebert[train]'" in capsys.readouterr().err


def test_a_bug_of_ours_is_not_called_a_missing_extra(tmp_path, monkeypatch):
    (tmp_path / "broken_stage.py").write_text("import sparsebert.no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError):
        run_command(Command(word="train", module="broken_stage", extra="train", help=""), [])


@pytest.mark.parametrize(("module", "word"), [("training", "train"), ("export", "export"), ("service", "serve")])
def test_each_stage_runs_as_a_module(module, word, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: sparsebert {word}")


def test_export_is_imported_by_a_process_that_has_nothing_yet():
    command = [sys.executable, "-m", "export", "--help"]
    assert subprocess.run(command, capture_output=True, check=True).stdout.startswith(b"usage: sparsebert export")


def test_the_command_itself_imports_no_stage():
    code = "import sys, sparsebert.cli; print(sorted({'torch', 'onnxruntime', 'fastapi'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_onnx_runtime_is_told_to_send_nothing_before_it_is_loaded() -> None:
    program = "import os, sys, PACKAGE; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    for package in ("sparsebert", "service", "export"):
        environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
        command = [sys.executable, "-c", program.replace("PACKAGE", package)]
        told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert told.stdout.split() == ["1", "False"]
