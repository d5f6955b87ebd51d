"""Which texts are asked?

The validation sentences of SST-2, in an order that mixes lengths the same way on every run.
"""

import random
from pathlib import Path

from sparsebert.errors import DataError


def read_texts(data_dir: Path) -> list[str]:
    """All sentences of `validation.parquet`, shuffled by a fixed seed."""
    import pandas as pd

    file = data_dir / "validation.parquet"
    if not file.is_file():
        raise DataError(f"{file} is not there; give --data-dir a folder with SST-2 as validation.parquet")
    texts = [str(text) for text in pd.read_parquet(file)["sentence"]]
    random.Random(0).shuffle(texts)
    return texts
