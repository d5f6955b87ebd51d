"""What does install.sh leave on a box, the first time, again, and when a release fails?"""

import re
from pathlib import Path

SYSTEMD = Path(__file__).parents[3] / "deploy" / "systemd"
UNIT = SYSTEMD / "sparsebert.service"


def test_a_dry_run_writes_nothing(box):
    before = sorted(box.root.rglob("*"))
    done = box.install("--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"making {box.opt}/releases/" in done.stdout
    assert sorted(box.root.rglob("*")) == before
    assert box.calls == []


def test_without_models_it_installs_and_starts_nothing(box):
    done = box.install()
    assert (done.returncode, done.stderr) == (0, "")
    assert box.calls[0] == (
        f"pip install --quiet --disable-pip-version-check --constraint {box.checkout}/constraints.txt "
        f"{box.checkout}[serve]"
    )
    assert box.calls[1:] == ["daemon-reload", "enable --quiet sparsebert"]
    assert (box.root / "etc/systemd/system/sparsebert.service").read_bytes() == UNIT.read_bytes()
    assert "there are no models yet" in done.stdout


def test_its_settings_are_written_once(box):
    settings = box.root / "etc/sparsebert/sparsebert.env"
    settings.unlink()
    assert box.install().returncode == 0
    assert settings.read_bytes() == (SYSTEMD / "sparsebert.env").read_bytes()
    settings.write_text("mine")
    box.change_sources("new")
    assert box.install().returncode == 0
    assert settings.read_text() == "mine"


def test_again_it_changes_nothing(installed):
    assert installed.update(installed.models("one")).returncode == 0
    done = installed.install()
    assert done.returncode == 0
    assert [call for call in installed.calls if call.startswith(("pip", "restart"))] == []
    assert "nothing has changed" in done.stdout


def test_without_an_index_it_takes_wheels(box):
    assert box.install("--wheels", "/media/usb").returncode == 0
    assert " --no-index --find-links /media/usb --constraint " in box.calls[0]


def test_an_upgrade_is_tested_on_the_models_and_can_be_undone(installed):
    installed.update(installed.models("one"))
    first = installed.release
    installed.change_sources("new")
    assert installed.install().returncode == 0
    second = installed.release
    assert second != first
    assert installed.calls[1:] == [
        "show --property=MemoryMax --value sparsebert", f"test {installed.state}/models",
        "daemon-reload", "enable --quiet sparsebert", "reset-failed sparsebert", "restart sparsebert",
    ]  # fmt: skip
    assert installed.install("--rollback").returncode == 0
    assert (installed.release, installed.calls[-1]) == (first, "restart sparsebert")


def test_a_release_that_fails_on_the_models_is_not_switched_to(installed):
    installed.update(installed.models("one"))
    first = installed.release
    installed.change_sources("new")
    (installed.state / "models/demo/sparse-int8/manifest.json").write_text("fails-its-test")
    done = installed.install()
    assert (done.returncode, installed.release) == (1, first)
    assert "nothing was switched" in done.stderr
    assert "restart sparsebert" not in installed.calls


def test_a_release_that_does_not_get_ready_is_switched_back_from(installed):
    installed.update(installed.models("one"))
    first = installed.release
    installed.change_sources("new")
    planned = installed.install("--dry-run").stdout
    release = Path(re.search(r"making (\S+)", planned)[1])
    assert installed.install().returncode == 0
    (release / "never-ready").touch()
    assert installed.install("--rollback").returncode == 0
    assert installed.release == first
    done = installed.install()
    assert (done.returncode, installed.release) == (1, first)
    assert "the one before serves again" in done.stderr
    assert installed.calls.count("restart sparsebert") == 2
