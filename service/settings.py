"""How is the service set up: its flags, its environment variables, their defaults and ranges?

The one source of all four; knows nothing about what the values do, nor how they are read.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from service.arguments import ENV_PREFIX, read
from service.devices import CACHING, MAX_BATCH_TOKENS, Device, DeviceName
from service.rates import FORM, read_rate

ORIGIN = re.compile(r"\*|https?://[^\s/?#@]+")


class Settings(BaseSettings):
    """Serve model bundles over HTTP; `sparsebert serve --ray --help` tells how on a cluster."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", allow_inf_nan=False)

    models: Path = Field(
        default=Path("models"), description="Folder with the bundles, laid out as `<models>/<model>/<variant>/`."
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. Leave it for this machine only; 0.0.0.0 lets others in.",
    )
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port to listen on; 0 takes any free one.")
    variants: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma list of the variants to load (`sparse` or `model/sparse`); empty loads all. "
        "Name fewer to save memory.",
    )
    device: DeviceName = Field(
        default="cpu",
        description="What computes: the CPU, an NVIDIA GPU through CUDA or TensorRT, or an Intel CPU through OpenVINO. "
        "Each needs its own extra. What it cannot compute is refused, never moved to the CPU.",
    )
    device_id: int = Field(
        default=0,
        ge=0,
        le=255,
        description="Which of the GPUs that this process may use; other devices have only 0.",
    )
    device_cache: str = Field(
        default="",
        description="Folder in which TensorRT keeps the engines that it builds, and OpenVINO what it compiles; empty "
        "keeps nothing, and every start builds anew, which takes TensorRT minutes.",
    )
    default_variant: str = Field(
        default="",
        description="Variant (`sparse` or `model/sparse`) that answers when a request names none; "
        "empty takes the first in alphabetical order.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=256,
        description="Batches that are computed at the same time; 0 takes the CPUs this process may use (affinity and "
        "container quota), or 2 when a GPU computes: one is computed while the next is made ready. Choose fewer when "
        "other work shares the machine.",
    )
    batch_threads: int = Field(
        default=1,
        ge=0,
        le=256,
        description="Threads that one batch may use on the CPU; 0 takes as many as --threads. "
        "1 answers most texts a second while there is always work, more answer a lone text of a large model sooner.",
    )
    max_batch_tokens: int = Field(
        default=0,
        validate_default=True,
        ge=0,
        le=1_000_000,
        description="Tokens of one batch, padding included; at least the longest text of every bundle. 0 takes 512, "
        "or 16384 when a GPU computes. Lower it for shorter waits behind a batch and less memory, raise it for more "
        "texts a second.",
    )
    max_queue_items: int = Field(
        default=1024,
        ge=1,
        le=1_000_000,
        description="Texts that may wait for one variant; more are refused with 429. At least --max-request-items.",
    )
    max_queue_tokens: int = Field(
        default=131_072,
        ge=8,
        le=100_000_000,
        description="Tokens that may wait for one variant; more are refused with 429. "
        "Choose what the machine computes in the time a client is ready to wait.",
    )
    max_request_items: int = Field(
        default=256, ge=1, le=100_000, description="Texts in one request; more are refused with 422."
    )
    max_text_characters: int = Field(
        default=50_000,
        ge=100,
        le=10_000_000,
        description="Characters of one text; longer ones are refused with 422, whatever they ask for.",
    )
    max_body_bytes: int = Field(
        default=1_000_000, ge=1000, le=1_000_000_000, description="Bytes of one request; more are refused with 413."
    )
    request_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Seconds after which an unanswered request ends with 504. Choose a little less than clients wait.",
    )
    drain_timeout_s: float = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="Seconds that running requests get to finish after SIGTERM. "
        "Choose less than your process manager waits before it kills.",
    )
    api_keys: str = Field(
        default="",
        description="File with the hashes of API keys, made by `sparsebert key`, and read again on SIGHUP; empty asks "
        "nobody for a key, and lets nobody load or unload models over HTTP.",
    )
    rate_limit: str = Field(
        default="",
        description=f"Texts that a key without a limit of its own may ask for: {FORM}; "
        "empty sets no limit. Without keys all callers share it.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma list of the origins (`https://example.org`) whose pages may ask from a browser, or `*`; "
        "empty lets none.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least serious log line that is written."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="How log lines are written: to be read, or as JSON objects for a log collector."
    )
    access_log: bool = Field(
        default=False,
        description="Log a line for each request, but for probes and `/metrics`: who answered, sizes and times, "
        "never a text.",
    )
    otlp_endpoint: str = Field(
        default="",
        description="Base URL of an OpenTelemetry collector that gets traces (OTLP over HTTP, as "
        "`http://localhost:4318`); empty takes OTEL_EXPORTER_OTLP_ENDPOINT, and without that there are none. "
        "Needs `sparsebert[otel]`.",
    )
    dry_run: bool = Field(
        default=False, description="Load and test every variant, print a table and exit: 0 when all are good, else 1."
    )

    @field_validator("max_batch_tokens")
    @classmethod
    def _as_many_as_the_device_likes(cls, value: int, given: ValidationInfo) -> int:
        return value or MAX_BATCH_TOKENS[given.data.get("device", "cpu")]

    @field_validator("variants", "cors_origins", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(word.strip() for word in value.split(",") if word.strip())
        return value

    @model_validator(mode="after")
    def _fits_the_device(self) -> Self:
        if self.device_id and not Device(self.device).on_gpu:
            raise ValueError(f"--device-id is {self.device_id}, and --device {self.device} has only 0; leave it out")
        if self.device_cache and self.device not in CACHING:
            raise ValueError(
                f"--device-cache is {self.device_cache!r}, and --device {self.device} keeps nothing; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _queue_holds_one_request(self) -> Self:
        if self.max_queue_items < self.max_request_items:
            raise ValueError(
                f"--max-queue-items is {self.max_queue_items}: it must be at least --max-request-items, "
                f"{self.max_request_items}, or a full request would never be admitted"
            )
        if self.max_queue_tokens < self.max_batch_tokens:
            raise ValueError(
                f"--max-queue-tokens is {self.max_queue_tokens}: it must be at least --max-batch-tokens, "
                f"{self.max_batch_tokens}"
            )
        return self

    @model_validator(mode="after")
    def _rate_and_origins_have_their_form(self) -> Self:
        if self.rate_limit:
            try:
                read_rate(self.rate_limit)
            except ValueError as error:
                raise ValueError(f"--rate-limit: {error}") from error
        for origin in self.cors_origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"--cors-origins has {origin!r}: it must be `*` or like https://example.org:8443")
        return self

    @model_validator(mode="after")
    def _endpoint_is_an_address(self) -> Self:
        if self.otlp_endpoint and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise ValueError(
                f"--otlp-endpoint is {self.otlp_endpoint!r}: it must begin with http:// or https://, "
                "as http://localhost:4318"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the caller gives: the environment comes through `read_settings`."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings of a command line; a flag wins over its environment variable.

    Raises ConfigError naming flag, value and range; SystemExit after --help or for an unknown flag.
    """
    return read(Settings, arguments, environment)
