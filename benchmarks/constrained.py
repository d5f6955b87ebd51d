"""Does the service hold its rate on one core with 512 MB, without an error?

    python -m benchmarks.constrained --models models --variant sparse-int8
    python -m benchmarks.constrained --models models --variant sparse-int8 --data-dir data/sst2

Starts `sparsebert serve` under `taskset` and `prlimit --data`, and asks it from the other cores over 1, 16 and
64 connections in a closed loop, then with lists of 64 long texts. RLIMIT_DATA counts what the process may write
and nobody shares: heap, arenas and stacks, also where they were not touched yet. That is more than what a cgroup
would count of it, and leaves out the libraries' pages, which the kernel can take back; the peak of the resident
memory, in which those are, is told beside it. That the limit bites is tried first. Any answer but 200 ends it.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import psutil

from benchmarks.http_connections import post
from benchmarks.servers.texts import read_texts
from benchmarks.service_http import TEXTS, Measured, Service, measure
from benchmarks.service_process import started

LIST_TEXTS, LIST_WORDS = 64, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--variant", default="sparse-int8")
    parser.add_argument("--core", type=int, default=0, help="of the service; the clients get the others")
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each number of connections")
    parser.add_argument("--data-dir", type=Path, help="folder with SST-2, whose sentences are asked, not short ones")
    options = parser.parse_args()
    confined = ["taskset", "--cpu-list", str(options.core), "prlimit", f"--data={options.megabytes * 2**20}"]
    try_limit(confined, options.megabytes)
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {options.core} or {options.core})
    asked = read_texts(options.data_dir) if options.data_dir else TEXTS
    singles = [post("/v1/predict", json.dumps({"inputs": text}).encode()) for text in asked]
    rng = random.Random(0)
    words = " ".join(TEXTS).split()
    texts = [" ".join(rng.choices(words, k=LIST_WORDS)) for _ in range(LIST_TEXTS)]
    lists = [post("/v1/predict", json.dumps({"inputs": texts, "truncate": True}).encode())]
    with started(options.models, "--variants", options.variant, under=confined) as process:
        service = Service(port=process.port, process=psutil.Process(process.process.pid))
        measure(service, singles, 4, 2.0)
        for connections in (1, 16, 64):
            tell(f"{connections} connections", 1, measure(service, singles, connections, options.seconds))
        tell(f"4 connections with {LIST_TEXTS} texts each", LIST_TEXTS, measure(service, lists, 4, options.seconds))
        print(f"peak resident memory {peak_bytes(service.process) / 1e6:.0f} MB, no error")


def tell(what: str, texts: int, measured: Measured) -> None:
    latencies_ms = sorted(measured.load.latencies_ms)
    p50, p99 = (latencies_ms[int(share * (len(latencies_ms) - 1))] for share in (0.5, 0.99))
    print(f"{what}: {measured.load.per_second * texts:.0f} texts/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def try_limit(confined: list[str], megabytes: int) -> None:
    """End with a sentence unless a process under the same limits cannot have that much memory and sees one CPU."""
    program = f"import os; print(len(os.sched_getaffinity(0))); bytearray({megabytes} * 2**20)"
    tried = subprocess.run([*confined, sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if tried.stdout.strip() != "1" or "MemoryError" not in tried.stderr:
        sys.exit(f"the limits of one core and {megabytes} MB do not bite here: {tried.stdout}{tried.stderr}")
    print(f"one core, {megabytes} MB of RLIMIT_DATA; {megabytes} MB at once are refused with a MemoryError")


def peak_bytes(process: psutil.Process) -> int:
    """The most that was ever resident, as the kernel counted."""
    [peak_kb] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(peak_kb) * 1024


if __name__ == "__main__":
    main()
