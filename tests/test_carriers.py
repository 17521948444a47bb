"""Every shape of carrier that libraries have: what is written into it is read from it, in its own spelling."""

from __future__ import annotations

import email.message
import http.client
import io
import itertools
import os
import subprocess
import sys
import types
import urllib.request
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from tracekit import extract, inject

if TYPE_CHECKING:
    from collections.abc import Callable

TRACEPARENT: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACESTATE: Final = "vendor=a b"
BAGGAGE: Final = "tenant=caf%C3%A9%20bar"
FIELDS: Final = {"traceparent": TRACEPARENT, "tracestate": TRACESTATE, "baggage": BAGGAGE}


def context_to_send() -> Context:
    span_context = SpanContext(
        0x4BF92F3577B34DA6A3CE929D0E0E4736,
        0x00F067AA0BA902B7,
        is_remote=True,
        trace_flags=TraceFlags(1),
        trace_state=TraceState([("vendor", "a b")]),
    )
    context = trace.set_span_in_context(NonRecordingSpan(span_context), Context())
    return baggage.set_baggage("tenant", "café bar", context)


CONTEXT: Final = context_to_send()


def sent_by(carrier: object) -> tuple[SpanContext, dict[str, object]]:
    context = extract(carrier)
    return trace.get_current_span(context).get_span_context(), dict(baggage.get_all(context))


SENT: Final = (trace.get_current_span(CONTEXT).get_span_context(), dict(baggage.get_all(CONTEXT)))


class Metadatum(NamedTuple):
    """As grpc has them."""

    key: str
    value: str


class Record(NamedTuple):
    """As kafka-python has them."""

    topic: str
    headers: list[tuple[str, bytes]]


def lib(module: str, name: str) -> Any:
    return getattr(pytest.importorskip(module), name)


def new(module: str, name: str, *args: Any, **kwargs: Any) -> Any:
    """Make a carrier of a library that may be missing."""
    return lib(module, name)(*args, **kwargs)


def cloud_event(module: str) -> Any:
    return new(module, "CloudEvent", {"type": "a.b", "source": "c", "id": "1", "specversion": "1.0"}, None)


def django_request() -> Any:
    request_class = lib("django.http", "HttpRequest")
    request = request_class.__new__(request_class)  # its __init__ wants Django's settings
    request.META = {"REQUEST_METHOD": "GET", **{f"HTTP_{name.upper()}": value for name, value in FIELDS.items()}}
    return request


def empty_mqtt_properties() -> Any:
    packets = pytest.importorskip("paho.mqtt.packettypes").PacketTypes
    return new("paho.mqtt.properties", "Properties", packets.PUBLISH)


def mqtt_properties() -> Any:
    properties = empty_mqtt_properties()
    properties.UserProperty = list(FIELDS.items())
    return properties


# What can be written to and read from; each call makes an empty one.
WRITABLE: Final[dict[str, Callable[[], Any]]] = {
    "dict": dict,
    "dict with other fields": lambda: {"Host": "a", "Accept": "b"},
    "dict of bytes": lambda: {b"host": b"a"},
    "list of pairs": list,
    "list of lists": lambda: [["a", "b"]],
    "list of text pairs": lambda: [("a", "b")],
    "list of byte pairs": lambda: [(b"a", b"b")],
    "Kafka headers": lambda: [("a", b"b")],
    "ASGI scope": lambda: {"type": "http", "headers": [(b"host", b"a")]},
    "ASGI scope with a tuple": lambda: {"type": "http", "headers": ((b"host", b"a"),)},
    "ASGI message": lambda: {"type": "http.response.start", "status": 200, "headers": []},
    "dict with headers": lambda: {"headers": {"a": "b"}},
    "dict with no headers yet": lambda: {"body": "b", "headers": None},
    "tuple": tuple,
    "tuple of pairs": lambda: (("a", "b"),),
    "gRPC invocation metadata": lambda: (Metadatum("a", "b"),),
    "WSGI environ": lambda: {"REQUEST_METHOD": "GET", "HTTP_HOST": "a", "TRACEPARENT": TRACEPARENT.replace("4", "5")},
    "copy of an environment": lambda: {"PATH": "/bin", "LANG": "C"},
    "SQS message": lambda: {"MessageBody": "b", "MessageAttributes": {}},
    "SQS message attributes": lambda: {"a": {"StringValue": "b", "DataType": "String"}},
    "something with headers": lambda: types.SimpleNamespace(headers={}),
    "something with no headers yet": lambda: types.SimpleNamespace(headers=None),
    "something with a tuple of headers": lambda: types.SimpleNamespace(headers=()),
    "properties of a message": lambda: types.SimpleNamespace(properties=types.SimpleNamespace(headers={})),
    "kafka-python record": lambda: Record("orders", []),
    "AMQP 1.0 message": lambda: types.SimpleNamespace(application_properties={b"a": b"b"}),
    "urllib request": lambda: urllib.request.Request("http://localhost"),
    "email message": email.message.Message,
    "http.client headers": http.client.HTTPMessage,
    "httpx headers": lambda: new("httpx", "Headers"),
    "httpx request": lambda: new("httpx", "Request", "GET", "http://localhost"),
    "requests headers": lambda: new("requests.structures", "CaseInsensitiveDict"),
    "requests request": lambda: new("requests", "Request", "GET", "http://localhost").prepare(),
    "requests session": lambda: new("requests", "Session"),
    "aiohttp headers": lambda: new("multidict", "CIMultiDict"),
    "starlette headers": lambda: new("starlette.datastructures", "MutableHeaders"),
    "starlette response": lambda: new("starlette.responses", "Response"),
    "werkzeug headers": lambda: new("werkzeug.datastructures", "Headers"),
    "urllib3 headers": lambda: new("urllib3", "HTTPHeaderDict"),
    "grpc.aio metadata": lambda: new("grpc.aio", "Metadata"),
    "aiokafka record": lambda: new("aiokafka.structs", "ConsumerRecord", "a", 0, 0, 0, 0, None, None, None, 0, 0, ()),
    "pika properties": lambda: new("pika", "BasicProperties"),
    "pika properties with headers": lambda: new("pika", "BasicProperties", headers={"a": "b"}),
    "MQTT properties": empty_mqtt_properties,
    "aio-pika message": lambda: new("aio_pika", "Message", b""),
    "nats-py message": lambda: new("nats.aio.msg", "Msg", None),
    "CloudEvent 1": lambda: cloud_event("cloudevents.v1.http"),
    "CloudEvent 2": lambda: cloud_event("cloudevents.core.v1.event"),
}

# What libraries hand to a reader; each call makes one with the fields.
READABLE: Final[dict[str, Callable[[], Any]]] = {
    "title case": lambda: {name.title(): value for name, value in FIELDS.items()},
    "upper case": lambda: {name.upper(): value for name, value in FIELDS.items()},
    "bytes in title case": lambda: {name.title().encode(): value.encode() for name, value in FIELDS.items()},
    "bytearrays": lambda: {name: bytearray(value.encode()) for name, value in FIELDS.items()},
    "memoryviews": lambda: {name: memoryview(value.encode()) for name, value in FIELDS.items()},
    "lists of values": lambda: {name: [value] for name, value in FIELDS.items()},
    "lists of byte values": lambda: {name: [value.encode()] for name, value in FIELDS.items()},
    "read-only mapping": lambda: types.MappingProxyType(FIELDS),
    "items": FIELDS.items,
    "generator": lambda: (pair for pair in FIELDS.items()),
    "pairs among malformed ones": lambda: [("a",), None, 3, *FIELDS.items(), ("a", "b", "c"), (None, None)],
    "bad values beside": lambda: {"a": None, None: "b", 3: 4, ("t",): object(), **FIELDS},
    "CGI variables": lambda: {f"HTTP_{name.upper()}": value for name, value in FIELDS.items()},
    "SQS attributes": lambda: {name: {"StringValue": value, "DataType": "String"} for name, value in FIELDS.items()},
    "SQS received message": lambda: {
        "Body": "b",
        "MessageAttributes": {n: {"StringValue": v, "DataType": "String"} for n, v in FIELDS.items()},
    },
    "Lambda's SQS record": lambda: {
        "body": "b",
        "messageAttributes": {n: {"stringValue": v, "dataType": "String"} for n, v in FIELDS.items()},
    },
    "SNS notification": lambda: {
        "Message": "b",
        "MessageAttributes": {n: {"Type": "String", "Value": v} for n, v in FIELDS.items()},
    },
    "confluent message": lambda: types.SimpleNamespace(headers=lambda: [(n, v.encode()) for n, v in FIELDS.items()]),
    "gRPC servicer context": lambda: types.SimpleNamespace(
        invocation_metadata=lambda: tuple(Metadatum(*pair) for pair in FIELDS.items())
    ),
    "headers that are a carrier": lambda: types.SimpleNamespace(headers=types.SimpleNamespace(headers=FIELDS)),
    "none above others": lambda: types.SimpleNamespace(headers=None, properties=types.SimpleNamespace(headers=FIELDS)),
    "http.client response headers": lambda: http.client.parse_headers(
        io.BytesIO("".join(f"{n.title()}: {v}\r\n" for n, v in FIELDS.items()).encode() + b"\r\n")
    ),
    "aiohttp request headers": lambda: new("multidict", "CIMultiDictProxy", new("multidict", "CIMultiDict", FIELDS)),
    "starlette request": lambda: new(
        "starlette.requests",
        "Request",
        {"type": "http", "headers": [(n.encode(), v.encode()) for n, v in FIELDS.items()]},
    ),
    "starlette headers": lambda: new("starlette.datastructures", "Headers", FIELDS),
    "werkzeug request": lambda: new("werkzeug.test", "EnvironBuilder", headers=FIELDS).get_request(),
    "WSGI environ": lambda: new("werkzeug.test", "EnvironBuilder", headers=FIELDS).get_environ(),
    "Django request": django_request,
    "Django META": lambda: django_request().META,
    "Django headers": lambda: django_request().headers,
    "kafka-python record": lambda: Record("orders", [(n, v.encode()) for n, v in FIELDS.items()]),
    "aiokafka record": lambda: new(
        "aiokafka.structs",
        "ConsumerRecord",
        "a",
        0,
        0,
        0,
        0,
        None,
        None,
        None,
        0,
        0,
        tuple((n, v.encode()) for n, v in FIELDS.items()),
    ),
    "redis stream entry": lambda: {n.encode(): v.encode() for n, v in FIELDS.items()},
    "MQTT properties": mqtt_properties,
    "MQTT message": lambda: types.SimpleNamespace(topic="a", properties=mqtt_properties()),
    "Celery request": lambda: new("celery.app.task", "Context", headers=dict(FIELDS)),
    "kombu message": lambda: new("kombu", "Message", headers=dict(FIELDS), body=b""),
}


@pytest.mark.parametrize("make", WRITABLE.values(), ids=WRITABLE)
def test_what_is_injected_is_extracted(make: Callable[[], Any]) -> None:
    assert sent_by(inject(make(), CONTEXT)) == SENT


@pytest.mark.parametrize("make", WRITABLE.values(), ids=WRITABLE)
def test_injecting_again_replaces(make: Callable[[], Any]) -> None:
    once = inject(make(), CONTEXT)
    other = extract({"traceparent": TRACEPARENT.replace("4", "5")})
    assert sent_by(inject(inject(once, other), CONTEXT)) == SENT


@pytest.mark.parametrize("make", WRITABLE.values(), ids=WRITABLE)
def test_carrier_is_changed_in_place_unless_it_is_a_tuple(make: Callable[[], Any]) -> None:
    carrier = make()
    assert (inject(carrier, CONTEXT) is carrier) is (type(carrier) is not tuple)


@pytest.mark.parametrize("make", READABLE.values(), ids=READABLE)
def test_fields_are_found(make: Callable[[], Any]) -> None:
    assert sent_by(make()) == SENT


def test_new_carrier_is_a_dict_of_lower_case_text() -> None:
    assert inject(context=CONTEXT) == FIELDS


@pytest.mark.parametrize(
    ("carrier", "written"),
    [
        ({}, {"traceparent": TRACEPARENT}),
        ({b"a": b"b"}, {b"traceparent": TRACEPARENT.encode()}),
        ({"REQUEST_METHOD": "GET"}, {"HTTP_TRACEPARENT": TRACEPARENT}),
        ({"PATH": "/bin"}, {"TRACEPARENT": TRACEPARENT}),
        (
            {"a": {"StringValue": "b", "DataType": "String"}},
            {"traceparent": {"StringValue": TRACEPARENT, "DataType": "String"}},
        ),
        ([], [("traceparent", TRACEPARENT.encode())]),
        ((), [("traceparent", TRACEPARENT)]),
        ([("a", "b")], [("traceparent", TRACEPARENT)]),
        ([(b"a", b"b")], [(b"traceparent", TRACEPARENT.encode())]),
        ([("a", b"b")], [("traceparent", TRACEPARENT.encode())]),
        ([["a", "b"]], [["traceparent", TRACEPARENT]]),
    ],
)
def test_field_is_spelled_as_its_neighbours(carrier: Any, written: Any) -> None:
    carrier = inject(carrier, CONTEXT)
    fields = carrier if isinstance(carrier, dict) else list(carrier)
    for field in written.items() if isinstance(written, dict) else written:
        assert field in (fields.items() if isinstance(fields, dict) else fields)


def test_earlier_fields_are_replaced_in_any_spelling() -> None:
    carrier = {"TraceParent": "old", "TRACEPARENT": "older", "Tracestate": "old=1", "Baggage": "old=1", "Host": "a"}
    only_trace = extract({"traceparent": TRACEPARENT})
    assert inject(carrier, only_trace) == {"Host": "a", "traceparent": TRACEPARENT}
    pairs = [(b"TraceParent", b"old"), (b"tracestate", b"old=1"), (b"host", b"a"), (b"traceparent", b"older")]
    assert inject(pairs, only_trace) == [(b"host", b"a"), (b"traceparent", TRACEPARENT.encode())]
    message = email.message.Message()
    message["Traceparent"] = message["TraceParent"] = "old"
    assert inject(message, only_trace).items() == [("traceparent", TRACEPARENT)]


def test_carrier_stays_as_it_is_without_a_trace() -> None:
    carrier = {"Traceparent": TRACEPARENT, "Tracestate": TRACESTATE, "Baggage": "a=1"}
    assert inject(dict(carrier), Context()) == carrier


def test_wsgi_environ_is_read_by_the_request_and_not_by_the_servers_own_environment() -> None:
    other = TRACEPARENT.replace("4", "5")
    assert (
        sent_by({"REQUEST_METHOD": "GET", "TRACEPARENT": other, "HTTP_TRACEPARENT": TRACEPARENT})[0]
        == (sent_by({"traceparent": TRACEPARENT})[0])
    )
    assert not sent_by({"REQUEST_METHOD": "GET", "TRACEPARENT": other})[0].is_valid


def test_environment_carries_the_trace_into_a_subprocess(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIELDS:
        monkeypatch.setenv(name.upper(), "")  # put back after the test
    inject(os.environ, CONTEXT)
    assert os.environ["TRACEPARENT"] == TRACEPARENT
    assert "traceparent" not in os.environ or sys.platform == "win32"
    child = "import os; from tracekit import extract, inject; print(inject(context=extract(os.environ)))"
    printed = subprocess.run([sys.executable, "-c", child], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == str(FIELDS)


@pytest.mark.parametrize("carrier", ["text", b"bytes", 3, object(), types.MappingProxyType({}), frozenset()])
def test_what_cannot_be_written_to_comes_back_as_it_was(carrier: object) -> None:
    assert inject(carrier, CONTEXT) is carrier


@pytest.mark.parametrize(
    "carrier", [None, "text", TRACEPARENT, b"bytes", 3, 0.5, object(), [], {}, (), [1], [None], dict]
)
def test_what_is_no_carrier_has_no_context(carrier: object) -> None:
    assert extract(carrier) == Context()


@pytest.mark.parametrize("beside", [5, True, "x", b"x", 0.5, None, [], {}, (), object(), {"accept": "*"}, [("a", "b")]])
def test_what_stands_under_headers_does_not_cost_the_fields_beside_it(beside: object) -> None:
    for key in ("headers", "MessageAttributes"):
        assert sent_by({**FIELDS, key: beside}) == SENT
        if type(beside) is not object:
            assert sent_by(inject({key: beside}, CONTEXT)) == SENT


def test_a_failing_part_of_a_message_does_not_cost_the_fields_beside_it() -> None:
    for hostile in (RaisingMapping(a="b"), Raising(), [("a", "b")] * 5_000, headers_of_headers()):
        assert sent_by({**FIELDS, "headers": hostile}) == SENT


def test_headers_of_a_message_beat_the_fields_beside_them() -> None:
    assert sent_by({"traceparent": TRACEPARENT.replace("a", "b"), "headers": FIELDS}) == SENT


class RaisingMapping(dict[str, str]):
    def items(self) -> Any:
        raise RuntimeError

    keys = __iter__ = get = __getitem__ = __setitem__ = __contains__ = items


class Raising:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class RaisingText(str):
    __slots__ = ()

    def lower(self) -> str:
        raise RuntimeError

    strip = isupper = __len__ = lower


def headers_of_headers() -> object:
    carrier = types.SimpleNamespace()
    carrier.headers = carrier
    return carrier


HOSTILE: Final[dict[str, Callable[[], object]]] = {
    "raising mapping": lambda: RaisingMapping(a="b"),
    "raising attributes": Raising,
    "raising name": lambda: {RaisingText("traceparent"): TRACEPARENT},
    "raising value": lambda: {"traceparent": RaisingText(TRACEPARENT)},
    "headers of headers": headers_of_headers,
    "raising headers": lambda: types.SimpleNamespace(headers=RaisingMapping(a="b")),
    "method that wants arguments": lambda: types.SimpleNamespace(headers=lambda name: name),
    "lone surrogates": lambda: {"traceparent": "\ud800", "\ud800": "\ud800", "baggage": "\ud800=\ud800"},
    "megabytes": lambda: {"traceparent": "0" * 10_000_000, "baggage": b"a" * 10_000_000, "x" * 10_000_000: "a"},
    "bytes that are not UTF-8": lambda: {b"\xff\xfe": b"\xff", b"traceparent": b"\xff"},
    "many fields": lambda: [("a", "b")] * 100_000,
    "many baggage headers": lambda: [("baggage", "," * 8_000)] * 100_000,
    "many values": lambda: {"traceparent": [TRACEPARENT] * 100_000},
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_hostile_carrier_starts_a_new_trace(make: Callable[[], object]) -> None:
    assert extract(make()) == Context()


@pytest.mark.parametrize("pair", [("a", "b"), ("traceparent", TRACEPARENT), ("baggage", ","), None])
def test_endless_carrier_is_not_read_to_its_end(pair: object) -> None:
    assert extract(itertools.repeat(pair)) == Context()


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_injecting_into_a_hostile_carrier_raises_nothing(make: Callable[[], object]) -> None:
    carrier = make()
    assert inject(carrier, CONTEXT) is carrier


@pytest.mark.parametrize("hostile", ["bad", "é=1", "\ud800=1", "a=\x00", "=", "=,=", ";", "x" * 9_000, "%=%", ",,,"])
def test_bad_baggage_does_not_cost_the_trace(hostile: str) -> None:
    span_context, entries = sent_by([("traceparent", TRACEPARENT), ("baggage", hostile), ("baggage", "good=1")])
    assert span_context.is_valid
    assert entries.get("good") == "1"


NAMES: Final = st.sampled_from([*FIELDS, "TraceParent", "HTTP_BAGGAGE", "headers", "MessageAttributes", "StringValue"])
VALUES: Final = st.sampled_from([*FIELDS.values(), "a=1,b", "cc-"])
TEXTS: Final = NAMES | VALUES | st.text(st.characters(codec=None), max_size=20)
SCALARS: Final = (
    TEXTS | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary() | st.none() | st.integers()
)
STRUCTURES: Final = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(SCALARS, inner)
        | st.lists(st.tuples(SCALARS, inner), max_size=4)
        | st.dictionaries(SCALARS, inner, max_size=4)
        | st.builds(types.SimpleNamespace, headers=inner)
    ),
    max_leaves=12,
)


@given(STRUCTURES)
def test_no_structure_makes_extract_raise(carrier: object) -> None:
    assert isinstance(extract(carrier), Context)


@given(STRUCTURES)
def test_no_structure_makes_inject_raise(carrier: object) -> None:
    inject(carrier, CONTEXT)


def test_no_library_of_a_carrier_is_imported() -> None:
    code = (
        "import sys; from tracekit import extract, inject; extract(inject({'traceparent': 'a'})); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"httpx", "requests", "starlette", "grpc", "kafka", "pika", "opentelemetry.sdk"} & set(loaded)
