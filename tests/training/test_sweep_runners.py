"""Each job gets one outcome, and nothing is left running: with jobs that are a line of Python."""

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from sparsebert.errors import ConfigError, MissingExtraError
from training.sweep.child import Child, _alone
from training.sweep.cluster import RayRunner
from training.sweep.local import LocalRunner, threads_each
from training.sweep.runner import Job, Outcome

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="ray is not installed (pip install 'sparsebert[sweep]')")


def job(folder: Path, name: str, code: str) -> Job:
    return Job(name=name, folder=folder / name, command=("-c", code), cwd=folder)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_each_job_gets_one_outcome(tmp_path):
    jobs = [
        job(tmp_path, "fine", "import os; print(os.environ['OMP_NUM_THREADS'], os.getcwd())"),
        job(tmp_path, "told", "import sys; sys.exit('sparsebert train: no luck')"),
        job(tmp_path, "raised", "print('first'); raise ValueError('a bug')"),
        job(tmp_path, "silent", "import sys; sys.exit(3)"),
        job(tmp_path, "killed", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
        Job(name="nowhere", folder=tmp_path / "nowhere", command=("-c", ""), cwd=tmp_path / "missing"),
    ]
    outcomes = list(LocalRunner(side_by_side=2, cpus=6).run(jobs))
    assert sorted((outcome.name, outcome.error) for outcome in outcomes if outcome.name != "nowhere") == [
        ("fine", None),
        ("killed", "killed by SIGKILL"),
        ("raised", "ValueError: a bug"),
        ("silent", "ended with code 3 and no word"),
        ("told", "no luck"),
    ]
    (nowhere,) = [outcome for outcome in outcomes if outcome.name == "nowhere"]
    assert "No such file or directory" in nowhere.error
    assert (tmp_path / "fine" / "train.log").read_text() == f"3 {tmp_path}\n"


def test_no_jobs_no_outcomes():
    assert list(LocalRunner(side_by_side=2, cpus=2).run([])) == []


@pytest.mark.parametrize(("cpus", "side_by_side", "threads"), [(8, 2, 4), (2, 3, 1), (2, 0, 2), (7, 2, 3)])
def test_processes_share_the_cpus(cpus, side_by_side, threads):
    assert threads_each(cpus, side_by_side) == threads


def test_a_log_keeps_earlier_words_and_an_error_is_of_this_time(tmp_path):
    runner = LocalRunner(side_by_side=1, cpus=1)
    (first,) = runner.run([job(tmp_path, "a", "import sys; sys.exit('bad day')")])
    (second,) = runner.run([job(tmp_path, "a", "import sys; sys.exit(1)")])
    assert (first.error, second.error) == ("bad day", "ended with code 1 and no word")
    assert (tmp_path / "a" / "train.log").read_text() == "bad day\n"


def test_an_interrupt_stops_what_runs_and_begins_nothing_more(tmp_path):
    code = "import os, signal; print(os.getpid()); os.kill(os.getppid(), signal.SIGINT); signal.pause()"
    jobs = [job(tmp_path, "a", code), job(tmp_path, "b", "print('begun')")]
    with pytest.raises(KeyboardInterrupt), closing(LocalRunner(side_by_side=1, cpus=1).run(jobs)) as outcomes:
        list(outcomes)
    words = (tmp_path / "a" / "train.log").read_text().splitlines()
    assert not is_alive(int(words[0]))
    assert words[-1] == "KeyboardInterrupt"  # the process could clean up
    assert not (tmp_path / "b").exists()


def test_a_process_that_will_not_end_is_killed(tmp_path):
    os.mkfifo(tmp_path / "ready")
    code = "import signal; signal.signal(2, signal.SIG_IGN); open('ready', 'w').close(); signal.pause()"
    child = Child(job(tmp_path, "a", code), threads=1)
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(child.run)
        (tmp_path / "ready").read_text()  # blocks until the process ignores interrupts
        child.interrupt()
        child.end(grace_s=0.01)
        assert outcome.result() == Outcome(name="a", error="stopped before its end")


def test_a_folder_is_one_process_s_alone_until_it_ends(tmp_path):
    stopping = Event()
    with _alone(tmp_path, stopping) as lock:
        kept = os.dup(lock)  # as a child has it, which may outlive what started it
    stopping.set()
    with _alone(tmp_path, stopping) as lock:
        assert lock is None
    os.close(kept)
    with _alone(tmp_path, stopping) as lock:
        assert lock is not None


def test_a_stopped_job_does_not_begin(tmp_path):
    child = Child(job(tmp_path, "a", "print('begun')"), threads=1)
    child.interrupt()
    child.end()
    assert child.run() == Outcome(name="a", error="stopped before its end")
    assert (tmp_path / "a" / "train.log").read_text() == ""


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_a_missing_ray_names_the_cure():
    with pytest.raises(MissingExtraError, match=r"--ray needs: pip install 'sparsebert\[sweep\]'"):
        RayRunner("local", threads=1, gpus=0, cpus=1)


@needs_ray
def test_a_cluster_that_is_not_there_is_told():
    with pytest.raises(ConfigError, match="--ray nonsense cannot be had: .*; give the address of a running cluster"):
        RayRunner("nonsense", threads=1, gpus=0, cpus=1)


@pytest.fixture(scope="module")
def ray_runner(request):
    with RayRunner("local", threads=1, gpus=0, cpus=2) as runner:
        yield runner


@needs_ray
@pytest.mark.filterwarnings("default")  # Ray's own
def test_on_ray_each_job_gets_one_outcome_and_a_lost_worker_is_replaced(ray_runner, tmp_path):
    lose_the_worker_once = (
        "import os, pathlib, signal\n"
        "seen = pathlib.Path('seen').exists()\n"
        "pathlib.Path('seen').touch()\n"
        "seen or os.kill(os.getppid(), signal.SIGKILL)"
    )
    jobs = [
        job(tmp_path, "fine", "import os; print(os.environ['OMP_NUM_THREADS'], os.getcwd())"),
        job(tmp_path, "told", "import sys; sys.exit('no luck')"),
        job(tmp_path, "lost", lose_the_worker_once),
    ]
    outcomes = sorted((outcome.name, outcome.error) for outcome in ray_runner.run(jobs))
    assert outcomes == [("fine", None), ("lost", None), ("told", "no luck")]
    assert (tmp_path / "fine" / "train.log").read_text() == f"1 {tmp_path}\n"


@needs_ray
@pytest.mark.filterwarnings("default")
def test_an_interrupt_stops_what_ray_runs(ray_runner, tmp_path):
    code = f"import os, signal; print(os.getpid()); os.kill({os.getpid()}, signal.SIGINT); signal.pause()"
    with pytest.raises(KeyboardInterrupt), closing(ray_runner.run([job(tmp_path, "a", code)])) as outcomes:
        list(outcomes)
    words = (tmp_path / "a" / "train.log").read_text().splitlines()
    assert not is_alive(int(words[0]))
    assert words[-1] == "KeyboardInterrupt"
