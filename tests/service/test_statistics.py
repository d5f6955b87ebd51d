"""Totals add up, also from several threads, and what was told of a moment does not change afterwards."""

from concurrent.futures import ThreadPoolExecutor

from service.statistics import Duration, Statistics, Total


def test_totals() -> None:
    statistics = Statistics()
    before = statistics.totals()
    statistics.on_end(succeeded=True, began_s=1.0, ended_s=1.5)
    statistics.on_end(succeeded=False, began_s=1.0, ended_s=3.0)
    statistics.on_stage(Total.QUEUE, 0.25)
    for num_items, infer_s in ((8, 0.5), (1, 0.125), (8, 0.25)):
        statistics.on_batch(num_items, infer_s)
    after = statistics.totals()
    nothing = Duration()
    assert after.requests == {
        Total.SUCCESS: Duration(1, 0.5), Total.FAIL: Duration(1, 2.0), Total.QUEUE: Duration(1, 0.25),
        Total.TOKENIZE: nothing, Total.INFER: nothing, Total.POSTPROCESS: nothing,
    }  # fmt: skip
    assert list(after.batches.items()) == [(1, Duration(1, 0.125)), (8, Duration(2, 0.75))]
    assert (after.num_batches, after.num_inputs, after.last_end_s) == (3, 17, 3.0)
    assert (before.num_batches, before.num_inputs, before.last_end_s) == (0, 0, None)
    assert before.requests == dict.fromkeys(Total, nothing)


def test_no_total_is_lost_between_threads() -> None:
    statistics = Statistics()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: statistics.on_batch(2, 0.5), range(2000)))
    totals = statistics.totals()
    assert (totals.num_inputs, totals.batches[2]) == (4000, Duration(2000, 1000.0))
