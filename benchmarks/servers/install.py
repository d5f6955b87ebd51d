"""How do the peers get onto this machine, each with versions of its own?

    python -m benchmarks.servers.install --peers-env venvs
    python -m benchmarks.servers.install --peers-env venvs --servers ray,mosec

One virtual environment for each, because their dependencies conflict; ONNX Runtime, tokenizers and numpy are of
the same version in all of them, and in ours (`peers/common.txt`, held against constraints.txt by a test).
"""

import argparse
import subprocess
import venv
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"


def names() -> list[str]:
    """All peers that have a server and requirements."""
    return sorted(path.name.removesuffix("_server.py") for path in PEERS.glob("*_server.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-env", type=Path, default=Path("venvs"))
    parser.add_argument("--servers", default=",".join(names()), help="comma list")
    options = parser.parse_args()
    for name in options.servers.split(","):
        folder = options.peers_env / name
        if not (folder / "bin" / "python").exists():
            venv.create(folder, with_pip=True)
        print(f"installing {name} into {folder}", flush=True)
        program = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*program, "-r", str(PEERS / f"{name}.txt")], check=True)


if __name__ == "__main__":
    main()
