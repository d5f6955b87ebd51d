"""Which models does a box serve after sparsebert-update-models, whatever is wrong with them?"""

import pytest


def test_models_are_tested_switched_and_the_last_two_kept(installed):
    for text in ("one", "two", "three"):
        done = installed.update(installed.models(text))
        assert (done.returncode, installed.served) == (0, text), done.stderr
        assert installed.calls[-1] == "restart sparsebert"
        assert sum(call.startswith("test ") for call in installed.calls) == 1
    kept = {folder.read_text() for folder in installed.state.glob("releases/*/demo/sparse-int8/manifest.json")}
    assert kept == {"two", "three"}


def test_the_same_models_again_are_not_served_anew(installed):
    folder = installed.models("one")
    installed.update(folder)
    done = installed.update(folder)
    assert (done.returncode, installed.calls) == (0, [])
    assert "serve already" in done.stdout


def test_models_that_were_damaged_on_the_disk_can_be_brought_again(installed):
    folder = installed.models("one")
    installed.update(folder)
    (installed.state / "models/demo/sparse-int8/manifest.json").write_text("rotten")
    assert installed.update(folder).returncode == 0
    assert installed.served == "one"


def test_models_that_fail_their_test_change_nothing(installed):
    installed.update(installed.models("one"))
    done = installed.update(installed.models("fails-its-test"))
    assert (done.returncode, installed.served) == (1, "one")
    assert "nothing was changed" in done.stderr
    assert "restart sparsebert" not in installed.calls
    assert len([path for path in (installed.state / "releases").iterdir() if path.is_dir()]) == 1


def test_models_that_do_not_get_ready_are_taken_back(installed):
    installed.update(installed.models("one"))
    done = installed.update(installed.models("never-ready"))
    assert (done.returncode, installed.served) == (1, "one")
    assert "the old ones serve again" in done.stderr
    assert installed.calls.count("restart sparsebert") == 2
    assert len([path for path in (installed.state / "releases").iterdir() if path.is_dir()]) == 1


def test_what_serves_is_on_the_disk_before_and_after_the_link_is_switched(installed):
    for text in ("one", "two"):
        installed.update(installed.models(text))
    one, two = (installed.state / name for name in ("previous", "models"))
    synced = (installed.root.parent / "synced").read_text().splitlines()
    before, after = synced[-4:-2]  # those of the link `previous` are the last
    assert before == f"--file-system {installed.state} {one.readlink()}"
    assert after == f"--file-system {installed.state} {two.readlink()}"


@pytest.mark.parametrize(
    "settings",
    [
        'SPARSEBERT_PORT="{port}"\nSPARSEBERT_HOST="127.0.0.1"\n',
        "SPARSEBERT_PORT = '{port}' \nSPARSEBERT_HOST=0.0.0.0\n",
        "SPARSEBERT_PORT=1\n SPARSEBERT_PORT={port}\n#SPARSEBERT_PORT=2\n",
    ],
)
def test_settings_are_read_as_systemd_reads_them(installed, settings):
    installed.settings(settings.format(port=installed.port))
    done = installed.update(installed.models("one"))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"http://127.0.0.1:{installed.port}/readyz is ready" in done.stdout


@pytest.mark.parametrize(("host", "asked"), [("::", "[::1]"), ("fe80::1", "[fe80::1]")])
def test_an_ipv6_address_is_asked_in_brackets(installed, host, asked):
    installed.settings(f"SPARSEBERT_HOST={host}\nSPARSEBERT_PORT=no-port\n")
    done = installed.update(installed.models("one"))
    assert done.returncode == 1
    assert f"http://{asked}:no-port/readyz is not ready after 0 s: nonnumeric port" in done.stderr
    assert "Traceback" not in done.stderr


def test_first_models_that_do_not_get_ready_leave_the_service_stopped(installed):
    done = installed.update(installed.models("never-ready"))
    assert done.returncode == 1
    assert installed.calls[-1] == "stop sparsebert"
    assert not (installed.state / "models").exists()


def test_the_models_before_come_back(installed):
    for text in ("one", "two"):
        installed.update(installed.models(text))
    assert installed.update("--rollback").returncode == 0
    assert (installed.served, installed.calls) == ("one", ["reset-failed sparsebert", "restart sparsebert"])
    assert installed.update("--rollback").returncode == 0
    assert installed.served == "two"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["/nonexistent"], 1, "has no bundles"),
        (["--rollback"], 1, "no models before"),
        ([], 2, ""),
        (["a", "b"], 2, ""),
    ],
)
def test_what_cannot_be_done_is_refused(installed, words, code, said):
    done = installed.update(*words)
    assert (done.returncode, installed.calls) == (code, [])
    assert said in done.stderr


def test_two_updates_at_a_time_are_refused(installed):
    import fcntl

    (installed.state / "releases").mkdir(parents=True)
    with (installed.state / "releases/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = installed.update(installed.models("one"))
    assert (done.returncode, installed.calls) == (1, [])
    assert "another update" in done.stderr
