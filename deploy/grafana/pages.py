"""Which dashboards are there, and what are their files?"""

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.dense_sparse import dense_sparse
from deploy.grafana.edge import edge
from deploy.grafana.overview import overview

FOLDER = Path(__file__).parent / "dashboards"


def write(folder: Path) -> None:
    """Write each of them there."""
    for name, text in texts().items():
        (folder / name).write_text(text, encoding="utf-8")


def texts() -> dict[str, str]:
    """The JSON of each, by the name of its file."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {f"{page.uid}.json": encoder.encode(page) + "\n" for page in (overview(), dense_sparse(), edge())}
