import pytest
from pydantic import ValidationError

from sparsebert.errors import BundleError
from sparsebert.geometry import Geometry
from sparsebert.latency import Curve, LatencyTable, ShapeLatency, read_latency_table, rising


def make_geometry(heads_L, neurons_L):
    return Geometry(hidden_size=8, head_size=2, heads_L=heads_L, neurons_L=neurons_L, vocabulary_size=9,
                    max_positions=8, token_types=2, num_labels=2)  # fmt: skip


def make_shape(**changes):
    values = {
        "precision": "fp32", "batch": 8, "tokens": 32, "rest_ms": 0.5,
        "attention": Curve(units=(0, 1, 4), times_ms=(0.0, 1.0, 2.5)),
        "ffn": Curve(units=(0, 10), times_ms=(0.0, 4.0)),
        "last_attention": Curve(units=(0, 4), times_ms=(0.0, 0.8)),
        "last_ffn": Curve(units=(0, 10), times_ms=(0.0, 0.1)),
    }  # fmt: skip
    return ShapeLatency(**(values | changes))


def make_table():
    return LatencyTable(hidden_size=8, head_size=2, threads=2, shapes=(make_shape(),), provenance={})


@pytest.mark.parametrize(("units", "time_ms"), [(0, 0.0), (1, 1.0), (2, 1.5), (4, 2.5)])
def test_a_curve_is_linear_between_its_points(units, time_ms):
    assert make_shape().attention.at(units) == time_ms


def test_beyond_the_last_point_nothing_is_guessed():
    with pytest.raises(ValueError, match="5 units are more than the 4 that were measured"):
        make_shape().attention.at(5)


@pytest.mark.parametrize(
    ("heads_L", "neurons_L", "time_ms"),
    [
        ((4, 4), (10, 10), 0.5 + 2.5 + 4.0 + 0.8 + 0.1),
        ((4, 0), (10, 10), 0.5 + 0.8 + 0.1 + 0.1),  # the last attention is the first layer's
        ((1, 2), (0, 5), 0.5 + 1.0 + 0.4 + 0.05),
        ((0, 0), (0, 0), 0.5),
    ],
)
def test_the_time_of_a_model_is_the_sum_of_its_blocks(heads_L, neurons_L, time_ms):
    assert make_shape().predict_ms(make_geometry(heads_L, neurons_L)) == pytest.approx(time_ms)


@pytest.mark.parametrize(
    ("units", "times_ms"), [((1, 2), (0.1, 0.2)), ((0, 2), (0.0,)), ((0, 3, 2), (0, 1, 2)), ((0,), (0.0,))]
)
def test_a_curve_rises_from_zero(units, times_ms):
    with pytest.raises(ValidationError):
        Curve(units=units, times_ms=times_ms)


def test_noise_makes_no_curve_fall():
    assert rising([0.3, 0.2, -1.0, 0.5]) == (0.0, 0.3, 0.3, 0.3, 0.5)
    assert rising([-0.1]) == (0.0, 0.0)


def test_a_table_is_read_and_its_shapes_are_named(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(make_table().model_dump_json())
    table = read_latency_table(path)
    assert table.find("fp32", 8, 32) == make_shape()
    with pytest.raises(ValueError, match="has no int8 8x32; it has fp32 8x32"):
        table.find("int8", 8, 32)


def test_what_is_no_table_is_told(tmp_path):
    with pytest.raises(BundleError, match="cannot be read; make it with 'sparsebert latency-table'"):
        read_latency_table(tmp_path / "none.json")
    (tmp_path / "table.json").write_text('{"hidden_size": 8}')
    with pytest.raises(BundleError, match="is no latency table: head_size: .*; make it with"):
        read_latency_table(tmp_path / "table.json")
