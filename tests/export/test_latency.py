import numpy as np
import pytest
from onnx import numpy_helper

from export.builder import count_operators
from export.latency import LatencyConfig, graph_of, measure, random_weights, unit_counts
from sparsebert.cli import run
from sparsebert.errors import ConfigError
from sparsebert.geometry import Geometry
from sparsebert.latency import read_latency_table
from sparsebert.processor import default_weight_range

DENSE = Geometry(hidden_size=16, head_size=4, heads_L=(4, 4), neurons_L=(24, 24), vocabulary_size=9, max_positions=12,
                 token_types=2, num_labels=3)  # fmt: skip


class Clock:
    """A millisecond passes between two looks."""

    now_s = 0.0

    def __call__(self):
        self.now_s += 1e-3
        return self.now_s


def test_where_curves_are_measured():
    assert unit_counts(12) == [1, 2, 4, 6, 9, 12]
    assert unit_counts(1536) == [24, 96, 256, 512, 768, 1152, 1536]
    assert unit_counts(1) == [1]


def test_random_models_have_the_blocks_that_are_asked_for():
    sizes = (("neurons", 5), ("heads", 3), ("heads", 1))
    for precision, product in (("fp32", "Gemm"), ("int8", "MatMulIntegerToFloat")):
        counts = count_operators(graph_of(random_weights(DENSE, sizes), precision))
        assert (counts["MultiHeadAttention"], counts["Softmax"], counts["Gelu"], counts[product]) == (1, 1, 1, 8)


def test_a_random_model_projects_its_embeddings_where_the_dense_one_does():
    narrow = DENSE.model_copy(update={"embedding_size": 8})
    for precision, product in (("fp32", "Gemm"), ("int8", "MatMulIntegerToFloat")):
        counts = count_operators(graph_of(random_weights(narrow, (("neurons", 5), ("heads", 3))), precision))
        assert counts[product] == 7  # two of each block, projection, pooler, classifier
    weights = random_weights(narrow, (("neurons", 5),))
    assert weights.embeddings.words_VE.shape[1] == 8
    assert [layer.weight_KN.shape for layer in weights.linears()][:2] == [(8, 16), (16, 5)]


def test_the_int8_graph_is_the_one_that_is_exported():
    graph = graph_of(random_weights(DENSE, (("neurons", 5), ("heads", 1))), "int8")
    weights = {one.name: numpy_helper.to_array(one) for one in graph.graph.initializer}
    assert np.abs(weights["block.0.hidden.weight"]).max() == {"full": 127, "reduced": 63}[default_weight_range()]
    assert {name for name in weights if name.endswith(".factor")} == {"block.0.hidden.factor", "block.0.output.factor"}


def test_every_precision_and_shape_has_its_curves():
    config = LatencyConfig(precisions=("fp32", "int8"), shapes=((1, 4), (2, 12)), rounds=1, threads=1)
    entries = measure(DENSE, config)
    assert [(one.precision, one.batch, one.tokens) for one in entries] == [
        ("fp32", 1, 4), ("fp32", 2, 12), ("int8", 1, 4), ("int8", 2, 12),
    ]  # fmt: skip
    for entry in entries:
        assert entry.attention.units == entry.last_attention.units == (0, 1, 2, 3, 4)
        assert entry.ffn.units == entry.last_ffn.units == (0, 1, 2, 4, 8, 12, 18, 24)
        assert entry.predict_ms(DENSE) >= entry.rest_ms > 0


def test_times_come_from_the_clock():
    config = LatencyConfig(precisions=("fp32",), shapes=((1, 4),), rounds=3, threads=1, clock_s=Clock())
    entry = measure(DENSE, config)[0]
    assert entry.rest_ms == pytest.approx(1.0)
    assert entry.attention.times_ms == pytest.approx((0.0,) * 5, abs=1e-9)  # every graph takes as long


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precisions": ("fp16",)}, "fp16 is for GPUs"),
        ({"rounds": 0}, "--rounds is 0"),
        ({"threads": -1}, "--threads is -1; give 0 for all cores"),
    ],
)
def test_words_that_cannot_be_measured_are_told(changes, message):
    with pytest.raises(ConfigError, match=message):
        LatencyConfig(**changes)


def test_texts_longer_than_the_model_reads_are_told():
    with pytest.raises(ConfigError, match="--shapes has 13 tokens, and the model reads at most 12"):
        measure(DENSE, LatencyConfig(shapes=((1, 13),)))


def test_the_command_writes_a_table(run_dir, tmp_path, capsys):
    out = tmp_path / "table.json"
    words = ["latency-table", str(run_dir / "dense"), "--out", str(out), "--shapes", "1x8", "--rounds", "1"]
    assert run([*words, "--precision", "int8", "--threads", "1"]) == 0
    table = read_latency_table(out)
    assert (table.hidden_size, table.head_size, table.threads, len(table.shapes)) == (16, 4, 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
    assert run(["latency-table", str(tmp_path), "--out", str(out)]) == 1
    assert "is not a masked checkpoint" in capsys.readouterr().err
    assert run(["latency-table", str(run_dir / "dense"), "--out", str(tmp_path / "no" / "table.json")]) == 1
    assert "in a folder that does not exist" in capsys.readouterr().err
    assert run([*words, "--shapes", "0x8"]) == 2
    assert run([*words, "--shapes", "eight"]) == 2


def never(*_):
    raise AssertionError("measured before it was checked")


def test_what_cannot_be_written_or_run_is_told_before_the_measurement(run_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("export.latency_cli.measure", never)
    words = ["latency-table", str(run_dir / "dense"), "--out"]
    assert run([*words, str(tmp_path)]) == 1
    assert "is a folder; name a file" in capsys.readouterr().err
    assert run([*words, str(tmp_path / "table.json"), "--threads", "-1"]) == 1
    assert "--threads is -1" in capsys.readouterr().err
    assert run([*words, "/proc/table.json"]) == 1
    assert "/proc/table.json cannot be written (" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
