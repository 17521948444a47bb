"""Secrets never leave the process: not as arguments, results, attributes, events, or inside containers."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pytest

from tracekit import (
    SpanAttribute,
    add_event,
    add_link,
    arg,
    configure,
    lifecycle,
    record_exception,
    result,
    set_attribute,
    set_attributes,
    traced,
    traced_block,
)
from tracekit._redaction import Redactor
from tracekit.testing import CapturedSpans, capture_spans

SECRET = "hunter2"  # what must not be found anywhere


def _everything(spans: CapturedSpans) -> str:
    return "".join(span.readable.to_json() for span in spans)


@pytest.mark.parametrize(
    "name",
    [
        *("password", "PASSWORD", "passwd", "secret", "token", "authorization", "api_key", "apikey", "cookie"),
        *("credential", "private_key", "session_id", "ssn", "card_number", "cvv"),
        *("db_password", "dbpassword", "userPassword", "X-Api-Key", "apiKey", "APIKey", "x-api-key", "api.key"),
        *("http.request.header.authorization", "Set-Cookie", "cookies", "access_token", "accessToken", "authtoken"),
        *("client_secret", "secrets", "credentials", "sessionId", "cardNumber", "card-number", "user.ssn", "cvv"),
    ],
)
def test_name_is_secret(name: str) -> None:
    assert Redactor().hides(name)


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer", "secretary", "assn", "session", "card", "number", "key", "private", "keyboard", "monkey"),
        *("order.id", "passenger", "pass", "cookiecutter", "authorized", "author", "api", "lesson", ""),
    ],
)
def test_name_is_harmless(name: str) -> None:
    assert not Redactor().hides(name)


def test_more_names_and_patterns_may_be_secret() -> None:
    redactor = Redactor(["iban", "tax number"], [re.compile(r"^internal\.")])
    assert [redactor.hides(name) for name in ("user.iban", "taxNumber", "internal.note", "number")] == [
        *(True, True, True),
        False,
    ]


def test_arguments_are_redacted_by_name_in_every_way_of_asking(spans: CapturedSpans) -> None:
    class Login:
        token = SECRET

    def plain(user: str, password: str, **more: str) -> None: ...

    def marked(password: Annotated[str, SpanAttribute("note")]) -> None: ...

    traced("test.default")(plain)("ann", SECRET, api_key=SECRET)
    traced("test.true", capture=True)(plain)("ann", password=SECRET)
    traced("test.named", capture=("password", "cookie"))(plain)("ann", SECRET, cookie=SECRET)
    traced("test.key", attributes={"password": lambda user: SECRET, "user": arg("user")})(plain)("ann", "")
    traced("test.source", attributes={"note": arg("password")})(plain)("ann", SECRET)
    traced("test.path", attributes={"note": arg("user.token")})(plain)(Login(), "")  # type: ignore[arg-type]
    traced("test.mapping", attributes=lambda **given: {**given, **given["more"]})(plain)("ann", SECRET, cookie=SECRET)
    traced("test.constant", attributes={"api_key": SECRET})(plain)("ann", "")
    traced("test.marked")(marked)(SECRET)
    assert SECRET not in _everything(spans)
    assert spans.one("test.default").attributes["password"] == "[redacted]"
    assert spans.one("test.default").attributes["user"] == "ann"
    assert spans.one("test.source").attributes["note"] == "[redacted]"
    assert spans.one("test.path").attributes["note"] == "[redacted]"
    assert spans.one("test.marked").attributes["note"] == "[redacted]"


def test_results_are_redacted_by_name(spans: CapturedSpans) -> None:
    def call() -> dict[str, str]:
        return {"token": SECRET}

    traced("test.path", capture_result="token")(call)()
    traced("test.key", capture_result={"token": lambda found: found["token"]})(call)()
    traced("test.result", attributes={"note": result("token")})(call)()
    traced("test.whole", capture_result=True)(call)()
    traced("test.mapping", capture_result=lambda found: {**found})(call)()
    assert SECRET not in _everything(spans)
    assert spans.one("test.whole").attributes["return_value"] == '{"token": "[redacted]"}'


def test_secrets_inside_containers_are_redacted(spans: CapturedSpans) -> None:
    nested: dict[str, Any] = {"user": {"name": "ann", "password": SECRET}, "headers": [{"Cookie": SECRET}]}
    with traced_block("test.block", {"payload": nested, "list": [nested]}):
        set_attribute("payload_2", nested)
        add_event("event", {"payload": nested})
    traced("test.call", capture=("payload",))(lambda payload: None)(nested)
    traced("test.constant", attributes={"payload": nested})(lambda: None)()
    assert SECRET not in _everything(spans)
    assert '"name": "ann"' in spans.one("test.call").attributes["payload"]


def test_events_links_and_exception_attributes_are_redacted(spans: CapturedSpans) -> None:
    with traced_block("test.other") as other:
        pass
    with traced_block("test.block"):
        set_attributes({"password": SECRET})
        add_event("event", {"password": SECRET})
        record_exception(ValueError("bad"), {"password": SECRET})
        add_link(other, {"password": SECRET})
        with lifecycle("step", {"password": SECRET}) as step:
            step.set({"token": SECRET})
    assert SECRET not in _everything(spans)
    assert spans.one("test.block").event("step_completed").attributes["token"] == "[redacted]"


def test_names_given_to_configure_are_secret_too() -> None:
    @traced("test.call")
    def call(iban: str, password: str, other: str) -> None: ...

    @traced("test.constant", attributes={"customer.iban": SECRET})
    def constant() -> None: ...

    configure(redact=["iban"], exporter="none")
    with capture_spans() as spans:
        call(SECRET, SECRET, "shown")
        constant()
        with traced_block("test.block", {"payload": {"IBAN": SECRET}}):
            pass
    assert SECRET not in _everything(spans)
    assert spans.one("test.call").attributes["other"] == "shown"
