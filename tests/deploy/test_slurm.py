"""The batch scripts under bash, with programs of the same names in place of Slurm's, accelerate and Ray."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from training.cli import build_parser

SLURM = Path(__file__).parents[2] / "deploy" / "slurm"
RECORD = """#!/bin/bash
line=${0##*/}
for word; do line+=$'\\t'$word; done
echo "$line" >> "$CALLS"
"""
WORK = """
if [[ -n ${HANG:-} ]]; then echo started; exec tail -f /dev/null; fi
exit ${CODE:-0}
"""
PROGRAMS = {
    "srun": """
while [[ $1 == --* ]]; do
    if [[ $1 == --nodes=* ]]; then nodes=${1#--nodes=}; fi
    shift
done
if [[ $1 == hostname ]]; then echo 10.0.0.7 fe80::1; exit; fi
for ((node = 1; node < nodes; node++)); do SLURM_NODEID=$node "$@"; done
export SLURM_NODEID=0
exec "$@"
""",
    "scontrol": """
if [[ $* == "show hostnames "* ]]; then printf 'gpu07\\ngpu08\\n'; fi
if [[ $* == "show job "* ]]; then echo "JobId=$3 JobState=${STATE:-RUNNING} Reason=None"; fi
""",
    "accelerate": WORK,
    "nvidia-smi": 'echo "${CAPABILITY:-8.0}"\n',
    "ray": "if [[ $1 == start && $* == *--head* ]]; then exec tail -f /dev/null; fi\n",
    "sparsebert": """
if ((SLURM_JOB_NUM_NODES > 1)); then
    until grep -q -- --head "$CALLS" && grep -q -- --relative "$CALLS"; do :; done
fi
"""
    + WORK,
}
JOB = {"SLURM_JOB_ID": "42", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "gpu[07-08]", "VENV": ""}


@pytest.fixture
def job(tmp_path):
    """Starts a script with some more variables."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    for name, body in PROGRAMS.items():
        (tmp_path / name).write_text(RECORD + body)
        (tmp_path / name).chmod(0o755)

    def start(script: str, **variables: str) -> "subprocess.Popen[str]":
        path = f"{tmp_path}:{os.environ['PATH']}"
        environment = {"PATH": path, "CALLS": str(tmp_path / "calls"), **JOB, **variables}
        return subprocess.Popen(
            ["bash", SLURM / script],
            env=environment,
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def run(process: "subprocess.Popen[str]") -> tuple[int, str]:
    errors = process.communicate(timeout=60)[1]
    return process.returncode, errors


def calls(tmp_path: Path, name: str) -> list[list[str]]:
    """The words of each call of a program, in order."""
    lines = [line.split("\t") for line in (tmp_path / "calls").read_text().splitlines()]
    return [words[1:] for words in lines if words[0] == name]


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


@pytest.mark.parametrize("script", ["train.sbatch", "sweep.sbatch"])
def test_bash_can_read_it(script):
    subprocess.run(["bash", "-n", SLURM / script], check=True)


def test_several_nodes_meet_at_the_first(job, tmp_path):
    variables = {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "32"}
    assert run(job("train.sbatch", **variables)) == (0, "")
    started = calls(tmp_path, "accelerate")
    assert [value(words, "--machine_rank") for words in started] == ["1", "0"]
    assert started[0][3:] == started[1][3:]
    assert started[0][3:18] == [
        "--num_machines", "2", "--num_processes", "8", "--main_process_ip", "gpu07", "--main_process_port", "20042",
        "--num_cpu_threads_per_process", "8", "--mixed_precision", "no", "--dynamo_backend", "no", "--multi_gpu",
    ]  # fmt: skip
    assert started[0][18:] == [
        "-m", "sparsebert", "train", "--output", "runs/42", "--recipe", "standard", "--model", "minilm",
        "--sparsity", "0.5,0.67,0.8", "--precision", "bf16", "--task", "sst2",
    ]  # fmt: skip
    assert calls(tmp_path, "srun")[0][:5] == [
        "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=32", "--kill-on-bad-exit=1",
    ]  # fmt: skip


def test_its_variables_are_flags_of_train(job, tmp_path):
    variables = {"OUTPUT": "my runs/a", "TASK": "", "DATA_DIR": "my data", "BATCH_SIZE": "64", "SPARSITY": "0.9"}
    more = {"RECIPE": "demo", "MODEL": "bert", "TRAIN_FLAGS": "--importance gradient --track none"}
    assert run(job("train.sbatch", **variables, **more)) == (0, "")
    [words] = calls(tmp_path, "accelerate")
    assert "--multi_gpu" not in words  # accelerate refuses it for one process
    options = build_parser().parse_args(words[words.index("train") + 1 :])
    assert (options.output, options.data_dir) == (Path("my runs/a"), Path("my data"))
    assert (options.recipe, options.model, options.task) == ("demo", "bert", None)
    assert (options.batch_size, options.sparsity) == (64, (0.9,))
    assert (options.importance, options.track) == ("gradient", "none")


@pytest.mark.parametrize(
    ("capability", "given", "precision"),
    [("7.0", "", "fp16"), ("8.0", "", "bf16"), ("12.0", "", "bf16"), ("", "", "bf16"), ("8.0", "fp32", "fp32")],
)
def test_the_precision_is_that_of_the_gpu(job, tmp_path, capability, given, precision):
    assert run(job("train.sbatch", CAPABILITY=capability, PRECISION=given))[0] == 0
    assert value(calls(tmp_path, "accelerate")[0], "--precision") == precision


@pytest.mark.parametrize("script", ["train.sbatch", "sweep.sbatch"])
def test_a_failed_run_is_not_repeated(job, tmp_path, script):
    assert run(job(script, CODE="3"))[0] == 3
    assert ["requeue", "42"] not in calls(tmp_path, "scontrol")


@pytest.mark.parametrize("script", ["train.sbatch", "sweep.sbatch"])
@pytest.mark.parametrize(
    ("number", "variables", "code", "requeued"),
    [
        (signal.SIGUSR1, {}, 0, True),
        (signal.SIGTERM, {"SLURM_RESTART_COUNT": "49"}, 0, True),
        (signal.SIGTERM, {"SLURM_RESTART_COUNT": "50"}, 1, False),
        (signal.SIGTERM, {"STATE": "CANCELLED"}, 143, False),
    ],
)
def test_a_preempted_job_goes_back_into_the_queue(job, tmp_path, script, number, variables, code, requeued):
    process = job(script, HANG="yes", **variables)
    assert process.stdout.readline() == "started\n", process.stderr.read()
    process.send_signal(number)
    assert run(process)[0] == code
    assert (["requeue", "42"] in calls(tmp_path, "scontrol")) is requeued


def test_a_sweep_has_a_ray_over_all_nodes(job, tmp_path):
    variables = {"SLURM_JOB_NUM_NODES": "3", "SLURM_GPUS_ON_NODE": "2", "SLURM_CPUS_PER_TASK": "16"}
    more = {"GRID": "sparsity=0.5,0.8 importance=fisher", "SEEDS": "1,2", "TRAIN_FLAGS": "--task mnli", "TMPDIR": "/t"}
    assert run(job("sweep.sbatch", **variables, **more)) == (0, "")
    workers, head = sorted((words for words in calls(tmp_path, "srun") if "ray" in words), key=lambda w: "--head" in w)
    shared = ["ray", "start", "--num-cpus=16", "--num-gpus=2", "--disable-usage-stats", "--block"]
    assert head == [
        "--nodes=1", "--ntasks=1", "--ntasks-per-node=1", "--cpus-per-task=16", "--overlap", "--nodelist=gpu07",
        "--gpus-per-node=2", *shared, "--head", "--node-ip-address=10.0.0.7", "--port=20042",
        "--include-dashboard=false", "--temp-dir=/t/ray-42",
    ]  # fmt: skip
    assert workers == [
        "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=16", "--overlap", "--relative=1",
        "--gpus-per-node=2", *shared, "--address=10.0.0.7:20042",
    ]  # fmt: skip
    assert calls(tmp_path, "sparsebert") == [
        [
            "sweep", "--output", "runs/sweep-42", "--ray", "10.0.0.7:20042", "--gpus", "1", "--jobs", "2",
            "--grid", "sparsity=0.5,0.8", "--grid", "importance=fisher", "--seeds", "1,2", "--", "--task", "mnli",
        ]
    ]  # fmt: skip
