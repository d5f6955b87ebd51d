"""How are metrics of several replicas told as one? Needs no Ray."""

from prometheus_client.parser import text_string_to_metric_families

from service.cluster.gathering import labelled, merged

TEXT = b"""# HELP a_total What a is.
# TYPE a_total counter
a_total{x="1"} 2.0
a_total{x="}"} 3.0
# HELP b Seconds.
# TYPE b histogram
b_bucket{le="+Inf"} 4.0
b_count 4.0
b_sum 0.5
# HELP c_total None yet.
# TYPE c_total counter
"""


def test_metrics_say_whose_they_are_and_each_family_is_told_once():
    assert merged([labelled(TEXT, "front#1"), labelled(TEXT, "front#2")]).decode() == (
        "# HELP a_total What a is.\n# TYPE a_total counter\n"
        'a_total{replica="front#1",x="1"} 2.0\na_total{replica="front#1",x="}"} 3.0\n'
        'a_total{replica="front#2",x="1"} 2.0\na_total{replica="front#2",x="}"} 3.0\n'
        "# HELP b Seconds.\n# TYPE b histogram\n"
        'b_bucket{replica="front#1",le="+Inf"} 4.0\nb_count{replica="front#1"} 4.0\nb_sum{replica="front#1"} 0.5\n'
        'b_bucket{replica="front#2",le="+Inf"} 4.0\nb_count{replica="front#2"} 4.0\nb_sum{replica="front#2"} 0.5\n'
        "# HELP c_total None yet.\n# TYPE c_total counter\n"
    )


def test_prometheus_reads_what_was_merged(client):
    client.post("/v1/predict", json={"inputs": ["good film", "bad film"], "variant": "dense"})
    text = client.get("/metrics").content
    families = list(text_string_to_metric_families(merged([labelled(text, "a"), labelled(text, "b")]).decode()))
    alone = list(text_string_to_metric_families(text.decode()))
    assert [family.name for family in families] == [family.name for family in alone]
    assert sum(len(family.samples) for family in families) == 2 * sum(len(family.samples) for family in alone)
    [inputs] = [family for family in families if family.name == "sparsebert_inference_inputs"]
    dense = [sample for sample in inputs.samples if sample.labels["variant"] == "dense"]
    assert [(sample.labels["replica"], sample.value) for sample in dense] == [("a", 2.0), ("b", 2.0)]
