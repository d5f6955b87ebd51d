"""The unit and its settings: does the service understand them, and does systemd?"""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from service.arguments import ENV_PREFIX, env_name
from service.cli import JOIN_S
from service.key_cli import main
from service.keys import read_keys
from service.settings import Settings, read_settings
from sparsebert.cli import COMMANDS

SYSTEMD = Path(__file__).parents[3] / "deploy" / "systemd"
UNIT = SYSTEMD / "sparsebert.service"
MANUAL = (SYSTEMD.parents[1] / "docs" / "operations.md").read_text()


def words_of(name: str) -> list[tuple[str, str]]:
    lines = (SYSTEMD / name).read_text().splitlines()
    return [tuple(line.split("=", 1)) for line in lines if re.match(r"[A-Za-z_]+=", line)]


def variables_of(name: str) -> dict[str, str]:
    return {key: value for key, value in words_of(name) if key.startswith(ENV_PREFIX)}


def test_the_unit_starts_a_command_with_settings_that_exist():
    unit = dict(words_of("sparsebert.service"))
    program, *words = unit["ExecStart"].split()
    assert program == "/opt/sparsebert/current/bin/sparsebert"
    assert words == ["serve"]
    assert "serve" in {command.word for command in COMMANDS}
    given = variables_of("sparsebert.env")
    assert set(given) <= {env_name(field) for field in Settings.model_fields}
    settings = read_settings([], given)
    assert (settings.models, settings.variants) == (Path("/var/lib/sparsebert/models"), ("sparse-int8",))
    assert settings.host == "127.0.0.1"


def test_the_unit_gives_time_to_drain_and_limits():
    unit = dict(words_of("sparsebert.service"))
    assert float(unit["TimeoutStopSec"]) > Settings.model_fields["drain_timeout_s"].default + JOIN_S
    assert (unit["CPUQuota"], unit["MemoryMax"], unit["Restart"]) == ("100%", "512M", "on-failure")
    assert (unit["StartLimitIntervalSec"], unit["RestartSec"]) == ("0", "10")  # for ever, and not in a hurry
    assert unit["Environment"] == "ORT_DISABLE_TELEMETRY=1"


def test_keys_are_the_file_itself_which_a_reload_reads_again():
    drop_in = dict(words_of("api-keys.conf"))
    path = "/etc/sparsebert/api-keys"
    assert drop_in == {
        "SupplementaryGroups": "sparsebert-keys",
        "Environment": f"{env_name('api_keys')}={path}",
        "ExecReload": "kill -HUP $MAINPID",
    }
    assert (
        f"sudo groupadd --system sparsebert-keys\nsudo install -m 640 -g sparsebert-keys /dev/null {path}\n" in MANUAL
    )
    unit = dict(words_of("sparsebert.service"))
    assert (unit.get("ExecReload"), unit["RestartForceExitStatus"]) == (None, "SIGHUP")  # it ends one without keys


@pytest.mark.parametrize("where", ["a box", "Docker"])
def test_the_manual_s_lines_take_out_the_only_key_in_place(tmp_path, where):
    """As somebody has it who followed the manual: with one key, `shop`."""
    path = tmp_path / "keys.jsonl"
    main(["--api-keys", str(path), "--name", "shop"])
    path.chmod(0o640)
    before = path.stat()
    recipe = MANUAL.split("* **A key leaked.**")[1].split("* **What stays open")[0]
    on_a_box, with_docker = re.findall(r"```\n(.*?)```", recipe, re.DOTALL)
    makes, takes, _, _ = {"a box": on_a_box, "Docker": with_docker}[where].splitlines()
    main(["--api-keys", str(path), *shlex.split(makes)[-2:]])
    command = takes.removeprefix("sudo ").replace("/etc/sparsebert/api-keys", path.name)
    subprocess.run(shlex.split(command), check=True, cwd=tmp_path)
    assert [key.name for key in read_keys(path).keys] == ["shop-2"]
    assert path.stat().st_mode & 0o777 == 0o640
    if where == "Docker":
        assert path.stat().st_ino == before.st_ino
        assert subprocess.run(shlex.split(command.replace("shop", "shop-2")), check=False, cwd=tmp_path).returncode
        assert [key.name for key in read_keys(path).keys] == ["shop-2"]


def test_what_the_manual_has_pasted_as_a_whole_reloads_nothing_that_still_starts():
    [block] = [one for one in re.findall(r"```\n(.*?)```", MANUAL, re.DOTALL) if "groupadd" in one]
    assert block.splitlines()[-1] == "sudo systemctl restart sparsebert"


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True)


def test_systemd_understands_the_unit(tmp_path):
    unit = tmp_path / "sparsebert.service"
    unit.write_text(UNIT.read_text().replace("ExecStart=/opt/sparsebert/current/bin/sparsebert", "ExecStart=/bin/true"))
    verified = analyze("verify", "--man=no", str(unit))
    assert (verified.returncode, verified.stderr) == (0, "")
    unit.write_text(unit.read_text() + "\n[Service]\nMemoryMax=much\n")
    assert "much" in analyze("verify", "--man=no", str(unit)).stderr


def test_systemd_calls_the_unit_s_exposure_ok():
    judged = analyze("security", "--offline=yes", "--no-pager", "--threshold=15", str(UNIT))
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd-analyze judges no files")
    assert judged.returncode == 0, judged.stdout[-500:]
