"""Secrets by look and by the program's own rule: wherever one stands, the exported bytes do not have it."""

from __future__ import annotations

import collections
import enum
import pickle
import re
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import Link, SpanContext, TraceFlags

import tracekit
from tracekit import (
    add_event,
    add_link,
    arg,
    lifecycle,
    record_exception,
    result,
    set_attribute,
    set_attributes,
    set_error,
    traced,
    traced_block,
)
from tracekit._redaction import DEFAULT_NAMES, Redactor
from tracekit.redaction import (
    BEARER_TOKENS,
    CARD_NUMBERS,
    CONNECTION_STRINGS,
    EMAIL_ADDRESSES,
    JSON_WEB_TOKENS,
    SECRET_VALUES,
    URL_PASSWORDS,
    SecretValue,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracekit.testing import CapturedSpans

MARK: Final = "hunter2Mark"
JWT: Final = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"

SECRET_NAMES: Final = """
X-Api-Key x_api_key xApiKey XAPIKEY card_number cardNumber creditcardnumber user.password
passwordHash old_passwords db-passwd PGPASSWORD jwtToken csrf_token tokens token_id id_token
refreshtoken oauth2Token aws_secret_access_key secretKey client-secret http.request.header.cookie
cookie_jar sessionid JSESSIONID session-id SESSION_ID PHPSESSIONID Proxy-Authorization
authorizationHeader private.key sshPrivateKey PRIVATE-KEYS gcpCredentials CVV2 cvv_code ssn user_SSN
customerSsn myApiKeys token_value max_token
"""
HARMLESS_NAMES: Final = """
author authors author_id authority tokenizer_count tokenize tokenization secretary_id max_tokens
gen_ai.usage.input_tokens outputTokens total_tokens token_count tokenCount card cardinality
card_type postcard_number_of_words discard_number number session sid session_count idle_sessions
privateer key keynote monkey api_version apiary passport passed compass classname assn lessn mission
cv cvs order.id http.route user.id
"""


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_name_is_secret(name: str) -> None:
    assert Redactor().hides(name)


@pytest.mark.parametrize("name", HARMLESS_NAMES.split())
def test_name_is_harmless(name: str) -> None:
    assert not Redactor().hides(name)


@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        (BEARER_TOKENS, "Authorization: Bearer abc.DEF-123_~+/==", "Authorization: Bearer [redacted]"),
        (BEARER_TOKENS, "basic dXNlcjpwYXNz", "basic [redacted]"),
        (BEARER_TOKENS, "a bearer of news", "a bearer of news"),
        (JSON_WEB_TOKENS, f"jwt={JWT}; x", "jwt=[redacted]; x"),
        (JSON_WEB_TOKENS, f"_{JWT[:40]}", "_[redacted]"),
        (CARD_NUMBERS, "paid with 4111111111111111.", "paid with [redacted]."),
        (CARD_NUMBERS, "4111 1111 1111 1111", "[redacted]"),
        (CARD_NUMBERS, "card 4 4111-1111-1111-1111", "card 4 [redacted]"),
        (CARD_NUMBERS, "amex 3782 822463 10005", "amex [redacted]"),
        (CARD_NUMBERS, "4111111111111112", "4111111111111112"),
        (CARD_NUMBERS, "411111111111111100000000", "411111111111111100000000"),
        (CARD_NUMBERS, "1700000000000000000", "1700000000000000000"),
        (EMAIL_ADDRESSES, "to ann.o'hara+x@mail.example.com!", "to [redacted]!"),
        (EMAIL_ADDRESSES, "@decorated a@b", "@decorated a@b"),
        (URL_PASSWORDS, "postgres://app:p@ss/w@db:5432/x", "postgres://app:[redacted]@db:5432/x"),
        (URL_PASSWORDS, "redis://:secret@host", "redis://:[redacted]@host"),
        (URL_PASSWORDS, "http://host:8080/users/me@example.com", "http://host:8080/users/me@example.com"),
        (URL_PASSWORDS, "http://host:8080", "http://host:8080"),
        (CONNECTION_STRINGS, "Server=x;User Id=sa;Password=pw;", "Server=x;User Id=sa;Password=[redacted];"),
        (CONNECTION_STRINGS, "host=db password='a b' port=1", "host=db password=[redacted] port=1"),
        (CONNECTION_STRINGS, "{'password': 'it\\'s', 'a': 1}", "{'password': [redacted], 'a': 1}"),
        (CONNECTION_STRINGS, "DB_PASSWORD=x&y=1", "DB_PASSWORD=[redacted]&y=1"),
        (CONNECTION_STRINGS, 'password="cut off', "password=[redacted]"),
        (CONNECTION_STRINGS, "the password is wrong", "the password is wrong"),
    ],
)
def test_looks_of_secrets(value: SecretValue, text: str, shown: str) -> None:
    assert value.hide(text) == shown
    assert value.hide("nothing to see") == "nothing to see"
    assert repr(value).startswith("SecretValue(")
    assert pickle.loads(pickle.dumps(value)).hide(text) == shown


@pytest.mark.parametrize("text", ["a.", "eyJ", "://a:", "4", "password=", '"\\', "bearer ", "1 ", "@", "x@x", "4111-"])
def test_looking_for_secrets_takes_no_time_that_grows_with_the_square(text: str) -> None:
    # Some 64 kB: with quadratic expressions, minutes.
    Redactor(values=SECRET_VALUES).scrub(text * (65_536 // len(text)))


def _secret_names() -> st.SearchStrategy[str]:
    parts = st.sampled_from(["", "user_", "X-", "my.", "db "])
    spelled = st.sampled_from([str.lower, str.upper, str.title])
    return st.builds(lambda part, name, spell: part + spell(name), parts, st.sampled_from(DEFAULT_NAMES), spelled)


# The mark between what makes it a secret by its look.
_LOOKS: Final = (
    f"Bearer {MARK}",
    f"{JWT[:24]}{MARK}.x.y",
    f"{MARK}@example.com",
    f"amqp://user:{MARK}@host/",
    f"password={MARK}",
    f"see https://x:{MARK}@y and more",
)


def _wrapped(secret: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    plain = st.integers() | st.text(string.ascii_letters, max_size=5) | st.none()
    return st.recursive(
        secret,
        lambda inner: st.one_of(
            st.lists(plain | inner, max_size=3).flatmap(lambda items: inner.map(lambda one: [*items, one])),
            inner.map(lambda one: (1, one)),
            inner.map(lambda one: collections.deque([one])),
            st.dictionaries(st.text(string.ascii_letters, max_size=5) | st.integers(), inner, max_size=2),
            inner.map(lambda one: {"key": one}),
        ),
        max_leaves=4,
    )


def _named(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda name, value, how: how(name, value),
        _secret_names(),
        inner,
        st.sampled_from(
            [
                lambda name, value: {name: value},
                lambda name, value: {name.encode(): value},
                lambda name, value: [[(name.encode(), value)]],
                lambda name, value: [[name, value], 3],
            ]
        ),
    )


_MARKED: Final = st.sampled_from([MARK, MARK.encode(), [MARK], {"a": MARK}, Path(MARK), 7, [(MARK, 1)]])
_SECRETS_BY_NAME: Final = _wrapped(_named(_MARKED))
_SECRETS_BY_LOOK: Final = _wrapped(
    st.sampled_from(_LOOKS)
    | st.sampled_from(_LOOKS).map(str.encode)
    | st.sampled_from(_LOOKS).map(lambda look: {look: 1})
    | st.sampled_from([Path(look) for look in _LOOKS if "/" not in look])
)


def _exported(run: Callable[[], None], path: Path, redact: Any) -> str:
    path.unlink(missing_ok=True)
    with tracekit.configure(exporter=f"file:{path}", redact=redact) as tracing:
        run()
        assert tracing.flush(timeout_s=10)
    exported = path.read_text(encoding="utf-8")
    assert exported
    return exported


def _use_everywhere(value: Any) -> None:
    """Put *value* wherever values can be put."""

    @traced("test.given", attributes={"a": arg("value"), "b": lambda value: value, "c": [value], "r": result()})
    def given_it(value: Any) -> Any:
        return value

    @traced("test.captured", capture=("value", "more", "rest"), capture_result=True)
    def captured(value: Any, *rest: Any, **more: Any) -> Any:
        return {"result": value}

    @traced("test.mapping", attributes=lambda value: {"value": value, **(value if isinstance(value, dict) else {})})
    def mapping(value: Any) -> None: ...

    @traced("test.default")
    def default(value: Any, **more: Any) -> None: ...

    given_it(value)
    captured(value, value, more=value)
    mapping(value)
    default(value, **({f"{key}": item for key, item in value.items()} if isinstance(value, dict) else {}))
    other = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))
    with traced_block("test.block", {"value": value}, links=[Link(other, {"value": value})]):
        set_attribute("value", value)
        set_attributes({"nested": {"value": value}})
        add_event("event", {"value": value})
        add_link(other, {"value": value})
        add_link(Link(other, {"value": value}))
        record_exception(ValueError("harmless"), {"value": value})
        with lifecycle("step", {"value": value}) as step:
            step.set({"more": value})


_EXAMPLES: Final = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_EXAMPLES
@given(_SECRETS_BY_NAME)
def test_secret_under_a_secret_name_is_never_in_the_exported_bytes(tmp_path: Path, value: Any) -> None:
    exported = _exported(lambda: _use_everywhere(value), tmp_path / "spans.jsonl", None)
    assert MARK not in exported


@_EXAMPLES
@given(_SECRETS_BY_LOOK)
@example("x" * 2_040 + f" password={MARK}")
@example("x" * 4_070 + f" password={MARK}")
def test_secret_by_its_look_is_never_in_the_exported_bytes(tmp_path: Path, value: Any) -> None:
    exported = _exported(lambda: _use_everywhere(value), tmp_path / "spans.jsonl", SECRET_VALUES)
    assert MARK not in exported


@pytest.mark.parametrize("look", _LOOKS)
def test_secret_in_an_exception_is_never_in_the_exported_bytes(tmp_path: Path, look: str) -> None:
    class NotedError(Exception):
        __notes__ = (look,)

    @traced("test.outer")
    def outer() -> None:
        with traced_block("test.inner"), lifecycle(f"step {look}"):
            raise NotedError(look) from KeyError(look)

    def run() -> None:
        with pytest.raises(NotedError):
            outer()
        with traced_block("test.block"):
            set_error(look)
            record_exception(ValueError({"value": look}))
            add_event(f"event {look}")

    exported = _exported(run, tmp_path / "spans.jsonl", SECRET_VALUES)
    assert MARK not in exported
    assert "NotedError" in exported


def test_looks_are_off_by_default(tmp_path: Path) -> None:
    exported = _exported(lambda: _use_everywhere(_LOOKS[0]), tmp_path / "spans.jsonl", None)
    assert MARK in exported


def test_card_number_that_is_a_number_is_hidden() -> None:
    with tracekit.configure(exporter="memory", redact=[CARD_NUMBERS]) as tracing, traced_block("test.block"):
        set_attributes({"one": 4111111111111111, "several": [1, 4111111111111111], "flag": True, "count": 12})
    attributes = dict(tracing.spans[0].attributes or {})
    assert attributes == {"one": "[redacted]", "several": '[1, "[redacted]"]', "flag": True, "count": 12}


def test_rule_hides_replaces_and_keeps() -> None:
    asked: list[tuple[str, object]] = []

    def rule(key: str, value: object) -> object:
        asked.append((key, value))
        return {"hide": True, "replace": 7, "odd": object(), "keep": False}.get(key)

    given = {"hide": 1, "replace": "x", "odd": 2, "keep": 3, "other": 4, "password": "p"}
    with tracekit.configure(exporter="memory", redact=[rule]) as tracing, traced_block("test.block", given):
        set_attribute("json", {"hide": 5, "other": [6]})
        set_error("bad")
        record_exception(ValueError("text"))
    attributes = dict(tracing.spans[0].attributes or {})
    assert attributes == {
        "hide": "[redacted]",
        "replace": 7,
        "odd": "[redacted]",
        "keep": 3,
        "other": 4,
        "password": "[redacted]",
        "json": '{"hide": "[redacted]", "other": [6]}',
    }
    assert ("password", "p") not in asked
    assert {"otel.status_description", "exception.message", "exception.stacktrace"} <= {key for key, _ in asked}


def test_rule_that_fails_hides_the_value_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    def rule(key: str, value: object) -> bool:
        raise RuntimeError(value)

    with tracekit.configure(exporter="memory", redact=[rule]) as tracing:
        before = tracing.stats.internal_errors

        @traced("test.call")
        def call(name: str) -> None:
            raise KeyError(name)

        with pytest.raises(KeyError):
            call(MARK)
        assert tracing.stats.internal_errors > before
    [span] = tracing.spans
    assert span.attributes is not None
    assert span.attributes["name"] == "[redacted]"
    assert span.status.description == "[redacted]"
    assert span.events[0].attributes is not None
    assert span.events[0].attributes["exception.message"] == "[redacted]"
    assert MARK not in caplog.text


def test_rule_that_uses_the_span_is_not_asked_about_that() -> None:
    def rule(key: str, value: object) -> bool:
        set_attribute("from.rule", value)
        return False

    with tracekit.configure(exporter="memory", redact=[rule]) as tracing, traced_block("test.block"):
        set_attribute("key", 1)
    assert dict(tracing.spans[0].attributes or {}) == {"from.rule": "[redacted]", "key": 1}


def test_look_whose_question_fails_hides_the_value() -> None:
    def fails(text: str) -> bool:
        raise RuntimeError(text)

    redact = [SecretValue(r"\d+", fails), SecretValue(re.compile("never"))]
    with tracekit.configure(exporter="memory", redact=redact) as tracing, traced_block("test.block"):
        set_attributes({"digits": "a1", "none": "a"})
    assert dict(tracing.spans[0].attributes or {}) == {"digits": "[redacted]", "none": "a"}


@pytest.mark.parametrize("given", [[str], [lambda: True], [lambda key: True], [3], [""], "name", [re.compile(b"x")]])
def test_what_tells_no_secrets_is_refused(given: Any) -> None:
    with pytest.raises(tracekit.errors.ConfigurationError, match=r"redact=.*Write redact=\["):
        tracekit.configure(redact=given, exporter="none")


def test_what_an_extractor_makes_of_a_secret_argument_is_redacted(spans: CapturedSpans) -> None:
    @traced(
        "shop.login",
        attributes=[
            {"who": lambda password: f"<{password}>", "user": lambda user: user, "has": lambda api_key: api_key != ""},
            lambda password, user: {"both": user + password},
        ],
    )
    def login(user: str, password: str, api_key: str = "k") -> None: ...

    login("ada", "hunter2")
    attributes = spans.one("shop.login").attributes
    assert attributes["who"] == attributes["both"] == "[redacted]"
    assert (attributes["user"], attributes["has"]) == ("ada", True)


def test_keys_that_are_enums_paths_or_strings_of_their_own_kind_hide_what_is_under_them(spans: CapturedSpans) -> None:
    class Field(enum.IntEnum):
        PASSWORD = 1

    class Name(str):
        __slots__ = ()

    held = {Field.PASSWORD: "hunter2", ("db", "password"): "hunter2", "headers": [(Name("authorization"), "hunter2")]}
    with traced_block("shop.order", {"held": held}):
        pass
    assert "hunter2" not in str(spans.one("shop.order").attributes)
    assert str(spans.one("shop.order").attributes["held"]).count("[redacted]") == 3
