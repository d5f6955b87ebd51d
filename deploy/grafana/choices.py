"""What can be chosen at the top of a page? The values are those that Prometheus knows in the time that is shown."""

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model

from deploy.grafana.queries import SERVICE, series
from deploy.grafana.telling import SOURCE

Choice = dashboard.QueryVariable
# Each variant that is known has this series, also one that did not load.
KNOWN = "sparsebert_model_ready"
OF_MODEL = series(KNOWN, SERVICE, 'model=~"$model"')


def instances() -> Choice:
    return _several(_choice("instance", "Service", "Processes, by the address that Prometheus asks", KNOWN, "instance"))


def one_instance() -> Choice:
    return _choice("instance", "Box", "The process, by the address that Prometheus asks", KNOWN, "instance")


def models() -> Choice:
    return _several(_choice("model", "Model", "Models of these services", series(KNOWN, SERVICE), "model"))


def one_model() -> Choice:
    return _choice("model", "Model", "The model whose variants are compared", series(KNOWN, SERVICE), "model")


def variants() -> Choice:
    return _several(_choice("variant", "Variant", "Variants of these models", OF_MODEL, "variant"))


def baseline() -> Choice:
    return _at_first(_choice("baseline", "Baseline", "Whom the other is held against", OF_MODEL, "variant"), "dense")


def candidate() -> Choice:
    return _at_first(_choice("candidate", "Candidate", "Who is held against it", OF_MODEL, "variant"), "sparse")


def _choice(name: str, label: str, description: str, known: str, values: str) -> Choice:
    query = f"label_values({known}, {values})"
    return (
        Choice(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query({"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
        .definition(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def _several(choice: Choice) -> Choice:
    everything = model.VariableOption(selected=True, text="All", value="$__all")
    return choice.multi(True).include_all(True).current(everything)


def _at_first(choice: Choice, value: str) -> Choice:
    return choice.current(model.VariableOption(selected=True, text=value, value=value))
