"""Environment variables are read as the type they have, or refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracekit._environment import Environment
from tracekit.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@pytest.mark.parametrize("reader", ["text", "boolean", "integer", "number", "pairs"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_variable_that_is_unset_or_empty_says_nothing(reader: str, value: str | None) -> None:
    variables = Environment({} if value is None else {"NAME": value})
    assert getattr(variables, reader)("NAME") is None


@given(st.integers(0, 10**15), st.sampled_from(["", "+", " ", "00"]))
def test_whole_number_is_read_as_written(number: int, prefix: str) -> None:
    assert Environment({"NAME": f"{prefix}{number}"}).integer("NAME") == number


@given(texts)
def test_integer_is_one_or_an_error_that_names_the_variable(value: str) -> None:
    read = _read_or_message(lambda variables: variables.integer("OTEL_X", minimum=1), value)
    assert read is None or (isinstance(read, int) and read >= 1) or "OTEL_X=" in str(read)


@given(texts | st.floats().map(str))
def test_number_is_in_its_range_or_an_error_that_names_the_variable(value: str) -> None:
    read = _read_or_message(lambda variables: variables.number("OTEL_X", maximum=1), value)
    assert read is None or (isinstance(read, float) and 0 <= read <= 1) or "OTEL_X=" in str(read)


def _read_or_message(read: Callable[[Environment], float | None], value: str) -> float | str | None:
    try:
        return read(Environment({"OTEL_X": value}))
    except ConfigurationError as error:
        return str(error)


@pytest.mark.parametrize("value", ["1", "yes", "on", "True!", "wahr"])
def test_boolean_that_is_neither_true_nor_false_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"OTEL_SDK_DISABLED='.*': expected one of true, false"):
        Environment({"OTEL_SDK_DISABLED": value}).boolean("OTEL_SDK_DISABLED")


@pytest.mark.parametrize(("value", "expected"), [("true", True), (" TRUE ", True), ("False", False)])
def test_boolean_is_read_in_any_case(value: str, expected: bool) -> None:
    assert Environment({"NAME": value}).boolean("NAME") is expected


@given(st.dictionaries(st.text("abcxyz._-", min_size=1), texts, max_size=5))
def test_pairs_come_back_as_they_were_encoded(pairs: dict[str, str]) -> None:
    encoded = ",".join(f"{key}={quote(value, safe='')}" for key, value in pairs.items())
    assert (Environment({"NAME": encoded}).pairs("NAME") or {}) == pairs


def test_wrong_pair_is_refused_without_showing_its_value() -> None:
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_HEADERS") as refused:
        Environment({"OTEL_EXPORTER_OTLP_HEADERS": "api-key-s3cr3t"}).pairs("OTEL_EXPORTER_OTLP_HEADERS")
    assert "s3cr3t" not in str(refused.value)
