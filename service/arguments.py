"""How do a command line and an environment become settings, and how are their fields called and told there?

Environment and arguments are parameters. Knows nothing about what the settings are.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from sparsebert.errors import ConfigError

ENV_PREFIX = "SPARSEBERT_"
METAVARS = {"int": "N", "float": "N", "Path": "FOLDER"}

Kind = TypeVar("Kind", bound=BaseSettings)


class _GivenEnvironment(EnvSettingsSource):
    """Reads the mapping it is given instead of the process environment."""

    def __init__(self, kind: type[BaseSettings], environment: Mapping[str, str]) -> None:
        self._given = {name.lower(): value for name, value in environment.items()}
        super().__init__(kind, env_ignore_empty=True)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name: value for name, value in self._given.items() if value}


def read(kind: type[Kind], arguments: Sequence[str], environment: Mapping[str, str]) -> Kind:
    """Settings of a command line; a flag wins over its environment variable.

    Raises ConfigError naming flag, value and range; SystemExit after --help or for an unknown flag.
    """
    flags = vars(_parser(kind).parse_args(list(arguments)))
    return checked(kind, {**_GivenEnvironment(kind, environment)(), **flags})


def checked(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Settings of values by field. Raises ConfigError naming flag, value and range."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigError(_sentence(kind, error)) from error


def flag_name(field: str) -> str:
    """The flag of a field."""
    return "--" + field.replace("_", "-")


def env_name(field: str) -> str:
    """The environment variable of a field."""
    return ENV_PREFIX + field.upper()


def allowed_values(kind: type[BaseSettings], field: str) -> str:
    """The range of a field, in words."""
    schema = kind.model_json_schema()["properties"][field]
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if schema["type"] not in ("integer", "number"):
        return {"boolean": "true or false", "array": "a comma list"}.get(schema["type"], "text")
    noun = "a whole number" if schema["type"] == "integer" else "a number"
    low = f"from {schema['minimum']:g}" if "minimum" in schema else f"above {schema['exclusiveMinimum']:g}"
    return f"{noun} {low} to {schema['maximum']:.10g}"


def default_text(kind: type[BaseSettings], field: str) -> str:
    """The default of a field as a user would type it; `(empty)` for none."""
    value: Any = kind.model_fields[field].default
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value or ("0" if value == 0 else "(empty)"))


def _parser(kind: type[BaseSettings]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sparsebert serve",
        description=kind.__doc__,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for name, field in kind.model_fields.items():
        text = _help(kind, name, field)
        if field.annotation is bool:
            parser.add_argument(flag_name(name), action="store_true", help=text)
        else:
            parser.add_argument(flag_name(name), metavar=_metavar(name, field), help=text)
    return parser


def _metavar(name: str, field: FieldInfo) -> str:
    if name.endswith("_s"):
        return "SECONDS"
    return METAVARS.get(str(getattr(field.annotation, "__name__", "")), "WORD")


def _help(kind: type[BaseSettings], name: str, field: FieldInfo) -> str:
    text = f"{field.description} [default: {default_text(kind, name)}; environment: {env_name(name)}]"
    return text.replace("%", "%%")


def _sentence(kind: type[BaseSettings], error: ValidationError) -> str:
    first = error.errors()[0]
    if not first["loc"]:
        return str(first["ctx"]["error"])
    field = str(first["loc"][0])
    if field not in kind.model_fields:
        return f"there is no setting {field!r}; the settings are {', '.join(kind.model_fields)}"
    return f"{flag_name(field)} ({env_name(field)}) is {first['input']!r}: it must be {allowed_values(kind, field)}"
