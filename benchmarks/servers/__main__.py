"""Which server gives the most texts a second from the same file, and how late are its answers?

    python -m benchmarks.servers.install --peers-env venvs
    python -m benchmarks.servers models/sst2 --data-dir data/sst2 --peers-env venvs --output runs/servers

Ours, its peers and the limit (no HTTP at all), for each variant at 1, 16 and 64 connections (closed loop) and at
70% of what ours can (open loop). What is in the output folder already is not measured again. Writes `cells.jsonl`
(a line for each measurement), `summary.json` and `table.md`. With --tune it tries the settings of each peer
instead, and tells the best.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

from benchmarks.servers.grid import Plan, Turns
from benchmarks.servers.registry import OURS, SERVERS
from benchmarks.servers.report import summarise, table
from benchmarks.servers.texts import read_texts
from benchmarks.servers.tuning import tune


def main() -> None:
    options = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the servers are stopped too
    names = options.servers.split(",")
    plan = Plan(
        model=options.model.resolve(),
        data_dir=options.data_dir.resolve(),
        texts=read_texts(options.data_dir),
        servers=[SERVERS[name] for name in names],
        variants=options.variants.split(","),
        seconds=options.seconds,
        rounds=options.rounds,
        environments=options.peers_env.absolute(),
        output=options.output.absolute(),
    )
    if options.tune:
        tune(plan, _tell)
        return
    records = Turns(plan, _tell).run()
    summary = summarise(list(records.values()), plan.variants, [*names])
    (plan.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (plan.output / "table.md").write_text(table(summary))
    print(table(summary))


def _tell(sentence: str) -> None:
    print(sentence, flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder with a bundle for each variant, such as models/sst2")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with SST-2 as validation.parquet")
    parser.add_argument("--servers", default=",".join(SERVERS), help=f"comma list; the open loop needs {OURS}")
    parser.add_argument("--variants", default="dense,dense-int8,sparse-int8", help="comma list")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers-env", type=Path, default=Path("venvs"), help="where install put the peers")
    parser.add_argument("--output", type=Path, default=Path("runs/servers"))
    parser.add_argument("--tune", action="store_true", help="try settings instead")
    return parser.parse_args()


if __name__ == "__main__":
    main()
