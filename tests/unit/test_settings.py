"""Settings: each variable's meaning, which of two wins, and one line for each bad value."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from manymodels.errors import SettingsError
from manymodels.settings import (
    DEFAULT_HANDLER,
    DEFAULT_PRELOAD,
    FRONTEND_RESPONSE_BYTES,
    HIGHEST_PORT,
    MIB,
    Amount,
    BackendSettings,
    GuardSettings,
    LogSettings,
    MetricsSettings,
    ServeSettings,
    StorageSettings,
)

steady = hypothesis_settings(deadline=None, derandomize=True)
"""The same examples in each run, however busy the machine is."""

GIB = 1024 * MIB
HOUR = 3600
SERVE_MEANINGS = [
    ("SAGEMAKER_BIND_TO_PORT", "9000", "port", 9000),
    ("SAGEMAKER_BIND_TO_PORT", "32766", "port", 32766),
    ("SAGEMAKER_BIND_TO_PORT", " 8081 ", "port", 8081),
    ("SAGEMAKER_MULTI_MODEL", "true", "multi_model", True),
    ("SAGEMAKER_MULTI_MODEL", "TRUE", "multi_model", True),
    ("SAGEMAKER_MULTI_MODEL", "1", "multi_model", True),
    ("SAGEMAKER_MULTI_MODEL", "off", "multi_model", False),
    ("SM_MODEL_DIR", "/models/one", "model_dir", Path("/models/one")),
    ("SAGEMAKER_HANDLER", "/app/h.py:handle", "handler", "/app/h.py:handle"),
    ("SAGEMAKER_MODEL_SERVER_WORKERS", "3", "workers_per_model", 3),
    ("SAGEMAKER_NUM_MODEL_WORKERS", "4", "workers_per_model", 4),
    ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "2", "response_timeout_seconds", 120),
    ("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "7", "response_timeout_seconds", 7),
    ("SAGEMAKER_MODEL_JOB_QUEUE_SIZE", "5", "job_queue_size", 5),
    ("SAGEMAKER_MAX_REQUEST_SIZE", "1000", "request_bytes", 1000),
    ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "20", "request_bytes", 20 * MIB),
    ("SAGEMAKER_MAX_HEAP_SIZE", "512m", "heap_bytes", 512 * MIB),
    ("SAGEMAKER_MAX_HEAP_SIZE", "2G", "heap_bytes", 2048 * MIB),
    ("SAGEMAKER_MAX_HEAP_SIZE", "4096k", "heap_bytes", 4 * MIB),
    ("SAGEMAKER_MAX_HEAP_SIZE", "2097152", "heap_bytes", 2 * MIB),
    ("SAGEMAKER_MAX_DIRECT_MEMORY_SIZE", "64m", "direct_memory_bytes", 64 * MIB),
    ("SAGEMAKER_MODEL_SERVER_VMARGS", "-Xss1m '-Da=b c'", "vmargs", ("-Xss1m", "-Da=b c")),
    ("MANYMODELS_ALLOW_URL_ARCHIVES", "yes", "allow_url_archives", True),
    ("JAVA_HOME", "/opt/java", "java_home", Path("/opt/java")),
    ("SAGEMAKER_CONTAINER_LOG_LEVEL", "10", "log", LogSettings(level=logging.DEBUG)),
    ("SAGEMAKER_CONTAINER_LOG_LEVEL", "0", "log", LogSettings(level=0)),
    ("SAGEMAKER_CONTAINER_LOG_LEVEL", "warning", "log", LogSettings(level=logging.WARNING)),
    ("MANYMODELS_LOG_FORMAT", "JSON", "log", LogSettings(json=True)),
    ("MANYMODELS_LOG_ACCESS", "on", "log", LogSettings(access=True)),
    ("MANYMODELS_LOG_METRICS", "true", "log", LogSettings(metrics=True)),
]
BACKEND_MEANINGS = [
    ("MANYMODELS_PRELOAD", "numpy, mylib", "preload", ("numpy", "mylib")),
    ("MANYMODELS_PRELOAD", "none", "preload", ()),
    ("MANYMODELS_PRELOAD", ",,", "preload", ()),
    ("MANYMODELS_THREADS", "4", "threads", 4),
    ("MMS_MAX_RESPONSE_SIZE", "123", "response_bytes", 123),
    ("SAGEMAKER_CONTAINER_LOG_LEVEL", "ERROR", "log", LogSettings(level=logging.ERROR)),
    ("MANYMODELS_MODEL_ROOT", "/models", "storage", StorageSettings(root=Path("/models"))),
    ("MANYMODELS_STORAGE", "Report", "storage", StorageSettings(mode="report")),
    ("MANYMODELS_STORAGE_HIGH", "97.5%", "storage", StorageSettings(high=Amount(share=0.975))),
    ("MANYMODELS_STORAGE_HIGH", "20g", "storage", StorageSettings(high=Amount(size=20 * GIB))),
    ("MANYMODELS_STORAGE_LOW", "50 %", "storage", StorageSettings(low=Amount(share=0.5))),
    ("MANYMODELS_STORAGE_BUDGET", "1T", "storage", StorageSettings(budget=1024 * GIB)),
    ("MANYMODELS_STORAGE_SETTLE_SECONDS", "0", "storage", StorageSettings(settle_seconds=0)),
    ("MANYMODELS_MEMORY_GUARD", "off", "guard", GuardSettings(active=False)),
    ("MANYMODELS_MEMORY_LIMIT", "2g", "guard", GuardSettings(limit=2 * GIB)),
    ("MANYMODELS_MEMORY_FLOOR", "10%", "guard", GuardSettings(floor=Amount(share=0.1))),
    ("MANYMODELS_MEMORY_FLOOR", "100m", "guard", GuardSettings(floor=Amount(size=100 * MIB))),
    ("MANYMODELS_MODEL_MEMORY_LIMIT", "1g", "guard", GuardSettings(model_bytes=GIB)),
    ("MANYMODELS_MODEL_REQUESTS_LIMIT", "1000", "guard", GuardSettings(model_requests=1000)),
    ("MANYMODELS_METRICS_PORT", "9404", "metrics", MetricsSettings(port=9404)),
    ("MANYMODELS_METRICS_FILE", "/m.prom", "metrics", MetricsSettings(file=Path("/m.prom"))),
]
SERVE_REFUSALS = [
    ("SAGEMAKER_BIND_TO_PORT", ["0", "-1", "32767", "65536", "http", "80.5"]),
    ("SAGEMAKER_MULTI_MODEL", ["maybe", "2", "truee"]),
    ("SAGEMAKER_MODEL_SERVER_WORKERS", ["0", "-2", "two", "1025"]),
    ("SAGEMAKER_NUM_MODEL_WORKERS", ["0", "1.5"]),
    ("SAGEMAKER_MODEL_SERVER_TIMEOUT", ["0", "soon", "35000001"]),
    ("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", ["0", "2147483648", "60s"]),
    ("SAGEMAKER_MODEL_JOB_QUEUE_SIZE", ["0", "many"]),
    ("SAGEMAKER_MAX_REQUEST_SIZE", ["0", "6MB", str(2**30 + 1)]),
    ("SAGEMAKER_MAX_PAYLOAD_IN_MB", ["0", "1025", "x"]),
    ("SAGEMAKER_MAX_HEAP_SIZE", ["1m", "m", "512q", "-512m", "1.5g", "512mb", "0"]),
    ("SAGEMAKER_MAX_DIRECT_MEMORY_SIZE", ["lots", "1k"]),
    ("SAGEMAKER_MODEL_SERVER_VMARGS", ["Xmx1g", "-Xss1m stray", "'-Xss1m", "-a ''"]),
    ("MANYMODELS_ALLOW_URL_ARCHIVES", ["sure"]),
    ("SAGEMAKER_CONTAINER_LOG_LEVEL", ["51", "-1", "loud", "10.0"]),
    ("MANYMODELS_LOG_FORMAT", ["xml"]),
    ("MANYMODELS_LOG_ACCESS", ["all"]),
    ("MANYMODELS_LOG_METRICS", ["3"]),
]
BACKEND_REFUSALS = [
    ("MANYMODELS_THREADS", ["0", "1025", "all"]),
    ("MMS_MAX_RESPONSE_SIZE", ["0", "-1", "2147483648", "6m"]),
    ("MANYMODELS_LOG_FORMAT", ["yaml"]),
    ("SAGEMAKER_CONTAINER_LOG_LEVEL", ["verbose"]),
    ("MANYMODELS_STORAGE", ["delete", "true"]),
    ("MANYMODELS_STORAGE_HIGH", ["101%", "-1%", "most", "90 percent", "%", "95", "0%"]),
    ("MANYMODELS_STORAGE_LOW", ["full", "1.5g", "90"]),
    ("MANYMODELS_STORAGE_BUDGET", ["90%", "1k", "0"]),
    ("MANYMODELS_STORAGE_SETTLE_SECONDS", ["-1", "a minute", "86401"]),
    ("MANYMODELS_MEMORY_GUARD", ["507"]),
    ("MANYMODELS_MEMORY_LIMIT", ["50%", "1m", "all"]),
    ("MANYMODELS_MEMORY_FLOOR", ["some", "200%", "100%"]),
    ("MANYMODELS_MODEL_MEMORY_LIMIT", ["10%", "1k"]),
    ("MANYMODELS_MODEL_REQUESTS_LIMIT", ["0", "1e6"]),
    ("MANYMODELS_METRICS_PORT", ["0", "65536", "on"]),
]


def refusals(table):
    return [(name, value) for name, values in table for value in values]


def test_without_variables_everything_has_its_documented_default():
    assert ServeSettings.from_environment({}) == ServeSettings(
        port=8080,
        multi_model=False,
        model_dir=Path("/opt/ml/model"),
        handler=DEFAULT_HANDLER,
        workers_per_model=1,
        response_timeout_seconds=HOUR,
        job_queue_size=100,
        request_bytes=6 * MIB,
        heap_bytes=None,
        direct_memory_bytes=None,
        vmargs=(),
        allow_url_archives=False,
        java_home=None,
        log=LogSettings(logging.INFO, json=False, access=False, metrics=False),
    )
    assert BackendSettings.from_environment({}) == BackendSettings(
        DEFAULT_PRELOAD, 1, FRONTEND_RESPONSE_BYTES, False, DEFAULT_HANDLER
    )
    assert BackendSettings() == BackendSettings(
        storage=StorageSettings(
            Path("/opt/ml/models"), "evict", Amount(share=0.95), Amount(share=0.9), None, 60
        ),
        guard=GuardSettings(True, None, None, None, None),
        metrics=MetricsSettings(None, None),
        log=LogSettings(),
    )


@pytest.mark.parametrize(
    ("high", "low", "budget"),
    [("90%", "95%", ""), ("10g", "11g", ""), ("90%", "2g", "2g"), ("1g", "60%", "2g")],
)
def test_a_low_mark_above_the_high_one_is_refused(high, low, budget):
    variables = {"MANYMODELS_STORAGE_HIGH": high, "MANYMODELS_STORAGE_LOW": low}
    with pytest.raises(SettingsError, match="must not be above"):
        BackendSettings.from_environment({**variables, "MANYMODELS_STORAGE_BUDGET": budget})


def test_a_high_mark_above_the_budget_is_refused():
    variables = {"MANYMODELS_STORAGE_HIGH": "20g", "MANYMODELS_STORAGE_BUDGET": "5m"}
    with pytest.raises(SettingsError, match="must not be above MANYMODELS_STORAGE_BUDGET"):
        BackendSettings.from_environment(variables)


@pytest.mark.parametrize(
    ("high", "budget", "low"),
    [
        ("50%", "", Amount(share=0.5)),
        ("97%", "", Amount(share=0.9)),
        ("1m", "2m", Amount(size=MIB)),
        ("20g", "", Amount(share=0.9)),
    ],
)
def test_a_high_mark_by_itself_brings_the_low_one_with_it(high, budget, low):
    variables = {"MANYMODELS_STORAGE_HIGH": high, "MANYMODELS_STORAGE_BUDGET": budget}
    assert BackendSettings.from_environment(variables).storage.low == low


def test_a_floor_that_leaves_nothing_of_the_limit_is_refused():
    variables = {"MANYMODELS_MEMORY_LIMIT": "1g", "MANYMODELS_MEMORY_FLOOR": "2g"}
    with pytest.raises(SettingsError, match="must leave something of the limit"):
        BackendSettings.from_environment(variables)


@pytest.mark.parametrize(("name", "value", "field", "meaning"), SERVE_MEANINGS)
def test_a_variable_of_serve_has_its_known_meaning_and_changes_nothing_else(
    name, value, field, meaning
):
    settings = ServeSettings.from_environment({name: value})
    defaults = ServeSettings()
    assert getattr(settings, field) == meaning
    others = set(ServeSettings.__dataclass_fields__) - {field}
    assert all(getattr(settings, other) == getattr(defaults, other) for other in others)


@pytest.mark.parametrize(("name", "value", "field", "meaning"), BACKEND_MEANINGS)
def test_a_variable_of_the_backend_has_its_known_meaning(name, value, field, meaning):
    assert getattr(BackendSettings.from_environment({name: value}), field) == meaning


@pytest.mark.parametrize("name", sorted({row[0] for row in SERVE_MEANINGS + BACKEND_MEANINGS}))
@pytest.mark.parametrize("value", ["", "  "])
def test_a_variable_set_to_nothing_counts_as_absent(name, value):
    assert ServeSettings.from_environment({name: value}) == ServeSettings()
    assert BackendSettings.from_environment({name: value}) == BackendSettings()


@pytest.mark.parametrize(
    ("winner", "loser", "field", "expected"),
    [
        (
            ("SAGEMAKER_MODEL_SERVER_WORKERS", "2"),
            ("SAGEMAKER_NUM_MODEL_WORKERS", "5"),
            "workers_per_model",
            2,
        ),
        (
            ("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "9"),
            ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "5"),
            "response_timeout_seconds",
            9,
        ),
        (
            ("SAGEMAKER_MAX_REQUEST_SIZE", "777"),
            ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "5"),
            "request_bytes",
            777,
        ),
    ],
)
def test_of_two_variables_for_one_thing_the_first_wins_and_both_are_checked(
    winner, loser, field, expected
):
    assert getattr(ServeSettings.from_environment(dict([winner, loser])), field) == expected
    assert getattr(ServeSettings.from_environment(dict([loser, winner])), field) == expected
    with pytest.raises(SettingsError, match=loser[0]):
        ServeSettings.from_environment(dict([winner, (loser[0], "nonsense")]))


@pytest.mark.parametrize(("name", "value"), refusals(SERVE_REFUSALS))
def test_a_bad_value_for_serve_is_refused_by_one_line_that_names_variable_and_value(name, value):
    with pytest.raises(SettingsError) as refused:
        ServeSettings.from_environment({name: value})
    message = refused.value.message
    assert message.startswith(f"{name}={value!r}: ")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("name", "value"), refusals(BACKEND_REFUSALS))
def test_a_bad_value_for_the_backend_is_refused_by_one_line_that_names_variable_and_value(
    name, value
):
    with pytest.raises(SettingsError) as refused:
        BackendSettings.from_environment({name: value})
    assert refused.value.message.startswith(f"{name}={value!r}: ")
    assert len(refused.value.message.splitlines()) == 1


def test_a_value_of_several_lines_is_still_refused_by_one():
    for name in ("SAGEMAKER_BIND_TO_PORT", "SAGEMAKER_MODEL_SERVER_VMARGS"):
        with pytest.raises(SettingsError) as refused:
            ServeSettings.from_environment({name: "one\ntwo"})
        assert len(refused.value.message.splitlines()) == 1


def test_the_first_port_that_the_frontend_refuses_is_refused_with_the_reason():
    assert HIGHEST_PORT == 32766
    with pytest.raises(SettingsError, match="the frontend takes no port above 32766"):
        ServeSettings.from_environment({"SAGEMAKER_BIND_TO_PORT": "32767"})


def test_a_response_may_be_as_large_as_a_request_and_never_less_than_the_frontends_default():
    assert ServeSettings(request_bytes=1).response_bytes == FRONTEND_RESPONSE_BYTES
    assert ServeSettings(request_bytes=50 * MIB).response_bytes == 50 * MIB


@pytest.mark.parametrize("name", ["SAGEMAKER_CONTAINER_LOG_LEVEL", "SAGEMAKER_MAX_HEAP_SIZE"])
@pytest.mark.parametrize("value", ["²", "9" * 5000])
def test_a_number_that_python_cannot_read_is_refused_like_any_other(name, value):
    with pytest.raises(SettingsError, match=name):
        ServeSettings.from_environment({name: value})


VARIABLES = sorted(
    {name for name, *_ in SERVE_MEANINGS + BACKEND_MEANINGS + SERVE_REFUSALS + BACKEND_REFUSALS}
)
# Digits of other scripts are what the test above is about.
values = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=("No", "Nd"))),
    st.text("0123456789kKmMgG-+._ ", max_size=12),
    st.text("-XD='\"\\ \n\t#", max_size=12),
    st.sampled_from(["true", "DEBUG", "json", "none", "-Xss1m", "512m", "\udcff"]),
)


def refusal(kind, variables) -> str | None:
    """Why there are no settings, or None if there are."""
    try:
        kind.from_environment(variables)
    except SettingsError as error:
        return error.message
    return None


@steady
@given(st.dictionaries(st.sampled_from(VARIABLES), values, max_size=4))
def test_any_values_at_all_make_settings_or_a_settings_error_of_one_line(variables):
    for kind in (ServeSettings, BackendSettings):
        message = refusal(kind, variables)
        if message is not None:
            assert len(message.splitlines()) == 1
            assert any(f"{name}={variables[name].strip()!r}" in message for name in variables)


@steady
@given(st.integers(1, HIGHEST_PORT), st.integers(1, 1024), st.integers(1, 2**31 - 1))
def test_any_number_in_range_comes_through(port, workers, seconds):
    settings = ServeSettings.from_environment(
        {
            "SAGEMAKER_BIND_TO_PORT": f"{port}",
            "SAGEMAKER_MODEL_SERVER_WORKERS": f"{workers}",
            "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": f"{seconds}",
        }
    )
    assert settings == ServeSettings(
        port=port, workers_per_model=workers, response_timeout_seconds=seconds
    )
