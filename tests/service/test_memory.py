"""What lives as long as the process is not walked by the garbage collector."""

import gc

from service.memory import keep_from_collection


def test_what_is_loaded_is_kept_from_collection() -> None:
    thresholds = gc.get_threshold()
    try:
        keep_from_collection()
        assert gc.get_freeze_count() > 1000
        assert gc.get_threshold()[0] == 10_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
