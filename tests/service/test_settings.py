"""Flags win over the environment, and a bad value is one sentence."""

from pathlib import Path

import pytest

from service.arguments import allowed_values
from service.settings import Settings, read_settings
from sparsebert.errors import ConfigError


def test_defaults() -> None:
    settings = read_settings([], {})
    assert (settings.host, settings.port, settings.models) == ("127.0.0.1", 8000, Path("models"))
    assert (settings.max_batch_tokens, settings.max_request_items, settings.max_body_bytes) == (512, 256, 1_000_000)
    assert settings.variants == ()
    assert not settings.dry_run


def test_flags_win_over_the_environment() -> None:
    environment = {"SPARSEBERT_PORT": "81", "SPARSEBERT_HOST": "::1", "SPARSEBERT_VARIANTS": "a, b", "PORT": "5"}
    settings = read_settings(["--port", "82", "--dry-run"], environment)
    assert (settings.port, settings.host, settings.variants, settings.dry_run) == (82, "::1", ("a", "b"), True)


def test_the_flags_are_pinned() -> None:
    assert list(Settings.model_fields) == [
        "models", "host", "port", "variants", "device", "device_id", "device_cache", "default_variant",
        "threads", "batch_threads", "max_batch_tokens",
        "max_queue_items", "max_queue_tokens", "max_request_items", "max_text_characters", "max_body_bytes",
        "request_timeout_s", "drain_timeout_s", "api_keys", "rate_limit", "cors_origins", "log_level", "log_format",
        "access_log", "otlp_endpoint", "dry_run",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (
            ["--port", "http"], {},
            "--port (SPARSEBERT_PORT) is 'http': it must be a whole number from 0 to 65535",
        ),
        (
            [], {"SPARSEBERT_PORT": "70000"},
            "--port (SPARSEBERT_PORT) is '70000': it must be a whole number from 0 to 65535",
        ),
        (
            ["--request-timeout-s", "nan"], {},
            "--request-timeout-s (SPARSEBERT_REQUEST_TIMEOUT_S) is 'nan': it must be a number above 0 to 3600",
        ),
        (
            ["--log-level", "loud"], {},
            "--log-level (SPARSEBERT_LOG_LEVEL) is 'loud': it must be one of debug, info, warning, error",
        ),
        (
            [], {"SPARSEBERT_DRY_RUN": "perhaps"},
            "--dry-run (SPARSEBERT_DRY_RUN) is 'perhaps': it must be true or false",
        ),
        (
            ["--max-queue-items", "10"], {},
            (
                "--max-queue-items is 10: it must be at least --max-request-items, 256, "
                "or a full request would never be admitted"
            ),
        ),
        (
            ["--rate-limit", "fast"], {},
            (
                "--rate-limit: 'fast' is no rate; write a whole number and a period, such as 100/second, 6000/minute "
                "or 360000/hour"
            ),
        ),
        (
            [], {"SPARSEBERT_CORS_ORIGINS": "https://a.example, b.example"},
            "--cors-origins has 'b.example': it must be `*` or like https://example.org:8443",
        ),
        (
            ["--max-queue-tokens", "100"], {},
            "--max-queue-tokens is 100: it must be at least --max-batch-tokens, 512",
        ),
        (
            ["--otlp-endpoint", "collector:4318"], {},
            "--otlp-endpoint is 'collector:4318': it must begin with http:// or https://, as http://localhost:4318",
        ),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_sentence(arguments: list[str], environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(arguments, environment)
    assert str(caught.value) == sentence


def test_an_unknown_flag_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_settings(["--prot", "1"], {})
    assert caught.value.code == 2
    assert "unrecognized arguments: --prot 1" in capsys.readouterr().err


def test_help_tells_every_flag_its_default_and_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings(["--help"], {})
    text = " ".join(capsys.readouterr().out.split())
    for field in Settings.model_fields:
        assert f"--{field.replace('_', '-')}" in text
        assert f"environment: SPARSEBERT_{field.upper()}]" in text


def test_ranges_in_words() -> None:
    assert allowed_values(Settings, "threads") == "a whole number from 0 to 256"
    assert allowed_values(Settings, "models") == "text"
