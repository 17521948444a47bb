"""The rules of W3C Trace Context level 2, seen from a service: headers in, one span, headers out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from tracekit import extract, inject, remote_parent

if TYPE_CHECKING:
    from collections.abc import Iterable

TRACE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID: Final = "00f067aa0ba902b7"
PARENT: Final = f"00-{TRACE_ID}-{SPAN_ID}-01"
OUTGOING: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0[0-3]")

TRACER: Final = TracerProvider().get_tracer(__name__)

Headers = list[tuple[str, str]]


def serve(*headers: tuple[str, str]) -> tuple[str, dict[str, str]]:
    """Answer a request with *headers* by calling the next service; returns the trace id sent on, and the headers."""
    with remote_parent(list(headers)), TRACER.start_as_current_span("server"):
        sent = inject()
    match = OUTGOING.fullmatch(sent["traceparent"])
    assert match is not None
    assert match[2] != SPAN_ID
    return match[1], sent


def serve_state(*states: str) -> str | None:
    """Answer a request whose trace is well and has *states* as its tracestate headers; returns the one sent on."""
    trace_id, sent = serve(("traceparent", PARENT), *(("tracestate", state) for state in states))
    assert trace_id == TRACE_ID, "a tracestate must never cost the trace"
    return sent.get("tracestate")


def continues(*headers: tuple[str, str]) -> bool:
    return serve(*headers)[0] == TRACE_ID


def test_request_without_headers_starts_a_trace() -> None:
    assert not continues()


def test_traceparent_alone_is_continued() -> None:
    trace_id, sent = serve(("traceparent", PARENT))
    assert trace_id == TRACE_ID
    assert "tracestate" not in sent


def test_each_request_sent_has_its_own_span_id() -> None:
    with remote_parent({"traceparent": PARENT}):
        parents = set[str]()
        for _ in range(3):
            with TRACER.start_as_current_span("client"):
                parents.add(inject()["traceparent"])
    assert len(parents) == 3
    assert {parent.split("-")[1] for parent in parents} == {TRACE_ID}


@pytest.mark.parametrize("name", ["traceparent", "TraceParent", "TRACEPARENT", "TrAcEpArEnT"])
def test_name_of_traceparent_is_read_in_any_case(name: str) -> None:
    assert continues((name, PARENT))


@pytest.mark.parametrize("name", ["trace-parent", "trace.parent", "trace_parent", "TRACE_PARENT", "traceparent ", ""])
def test_other_names_are_not_traceparent(name: str) -> None:
    assert not continues((name, PARENT))


@pytest.mark.parametrize("second", [PARENT, PARENT.replace("4b", "4c"), "", "junk", "x" * 100_000])
@pytest.mark.parametrize("name", ["traceparent", "Traceparent"])
def test_two_traceparents_start_a_new_trace(name: str, second: str) -> None:
    assert not continues(("traceparent", PARENT), (name, second))
    assert not continues(("traceparent", second), (name, PARENT))


def test_two_traceparents_joined_on_the_way_start_a_new_trace() -> None:
    assert not continues(("traceparent", f"{PARENT},{PARENT}"))
    assert not continues(("traceparent", f"cc-{PARENT[3:]}-x, {PARENT}"))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-",
        PARENT + ".",
        PARENT + "-",
        PARENT + "-what-the-future-brings",
        PARENT + "\n",
        PARENT + "\x00",
        PARENT[:-1],
        PARENT.upper(),
        PARENT.replace("-", "_"),
        PARENT.replace("4", "\N{FULLWIDTH DIGIT FOUR}", 1),
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"FF-{TRACE_ID}-{SPAN_ID}-01",
        f".0-{TRACE_ID}-{SPAN_ID}-01",
        f"0.-{TRACE_ID}-{SPAN_ID}-01",
        f"0-{TRACE_ID}-{SPAN_ID}-01",
        f"000-{TRACE_ID}-{SPAN_ID}-01",
        f"0000-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-.{TRACE_ID[1:]}-{SPAN_ID}-01",
        f"00-{TRACE_ID[:-1]}.-{SPAN_ID}-01",
        f"00-{TRACE_ID}0-{SPAN_ID}-01",
        f"00-{TRACE_ID[1:]}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-.{SPAN_ID[1:]}-01",
        f"00-{TRACE_ID}-{SPAN_ID[:-1]}.-01",
        f"00-{TRACE_ID}-{SPAN_ID}0-01",
        f"00-{TRACE_ID}-{SPAN_ID[1:]}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-.0",
        f"00-{TRACE_ID}-{SPAN_ID}-0.",
        f"00-{TRACE_ID}-{SPAN_ID}-001",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f"cc-{TRACE_ID}-{SPAN_ID}-01.what-the-future-brings",
        f"cc-{TRACE_ID}-{SPAN_ID}-0",
        f"cc-{'0' * 32}-{SPAN_ID}-01-x",
    ],
)
def test_malformed_traceparent_starts_a_new_trace(value: str) -> None:
    assert not continues(("traceparent", value), ("tracestate", "a=1"))


@pytest.mark.parametrize("rest", ["", "-what-the-future-brings", "-"])
def test_higher_version_is_read_as_far_as_it_is_known(rest: str) -> None:
    assert continues(("traceparent", f"cc-{TRACE_ID}-{SPAN_ID}-01{rest}"))


@pytest.mark.parametrize(("before", "after"), [(" ", ""), ("\t", ""), ("", " "), ("", "\t"), ("\t ", " \t")])
def test_white_space_around_traceparent_is_ignored(before: str, after: str) -> None:
    assert continues(("traceparent", f"{before}{PARENT}{after}"))


@pytest.mark.parametrize(
    ("given", "known"), [("00", 0), ("01", 1), ("02", 2), ("03", 3), ("04", 0), ("09", 1), ("ff", 3)]
)
@pytest.mark.parametrize("version", ["00", "cc"])
def test_flags_nobody_knows_are_not_passed_on(version: str, given: str, known: int) -> None:
    context = extract({"traceparent": f"{version}-{TRACE_ID}-{SPAN_ID}-{given}"})
    assert trace.get_current_span(context).get_span_context().trace_flags == known
    assert inject(context=context)["traceparent"] == f"00-{TRACE_ID}-{SPAN_ID}-{known:02x}"


def test_tracestate_without_traceparent_is_dropped() -> None:
    assert "tracestate" not in serve(("tracestate", "a=1,b=2"))[1]
    assert "tracestate" not in serve(("traceparent", "junk"), ("tracestate", "a=1,b=2"))[1]


def test_tracestate_is_passed_on_in_order() -> None:
    assert serve_state("b=2,a=1") == "b=2,a=1"


@pytest.mark.parametrize("name", ["TraceState", "TRACESTATE", "TrAcEsTaTe"])
def test_name_of_tracestate_is_read_in_any_case(name: str) -> None:
    assert serve(("traceparent", PARENT), (name, "a=1"))[1]["tracestate"] == "a=1"


@pytest.mark.parametrize("name", ["trace-state", "trace.state"])
def test_other_names_are_not_tracestate(name: str) -> None:
    assert "tracestate" not in serve(("traceparent", PARENT), (name, "a=1"))[1]


def test_several_tracestates_are_one() -> None:
    assert serve_state("a=1,b=2", "c=3", "d=4,e=5") == "a=1,b=2,c=3,d=4,e=5"


@pytest.mark.parametrize(
    ("states", "sent"),
    [
        ([""], None),
        (["", ""], None),
        ([" , ,\t"], None),
        (["a=1", ""], "a=1"),
        (["", "a=1"], "a=1"),
        (["a=1,,b=2,"], "a=1,b=2"),
        ([" a=1"], "a=1"),
        (["\ta=1 \t"], "a=1"),
        (["a=1 \t , \t b=2, \t c=3"], "a=1,b=2,c=3"),
        (["a= 1"], "a= 1"),
    ],
)
def test_empty_members_and_white_space_are_allowed(states: list[str], sent: str | None) -> None:
    assert serve_state(*states) == sent


@pytest.mark.parametrize("states", [["a=1,a=1"], ["a=1,a=2"], ["a=1", "a=1"], ["a=1", "b=2,a=2"]])
def test_key_given_twice_spoils_the_tracestate(states: list[str]) -> None:
    assert serve_state(*states) is None


KEY_CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
VALUE_CHARACTERS: Final = "".join(map(chr, range(0x20, 0x7F))).replace(",", "").replace("=", "")


@pytest.mark.parametrize(
    "member",
    [
        f"{KEY_CHARACTERS}={VALUE_CHARACTERS}",
        f"{KEY_CHARACTERS}@a-z0-9_-*/={VALUE_CHARACTERS}",
        "0tenant@vendor=1",
        "z" * 256 + "=1",
        "t" * 241 + "@" + "v" * 14 + "=1",
        "a=" + "v" * 256,
    ],
)
def test_all_that_the_grammar_allows_is_passed_on(member: str) -> None:
    assert serve_state("first=1", member) == f"first=1,{member}"


@pytest.mark.parametrize(
    "member",
    [
        "foo =1",
        "FOO=1",
        "foo.bar=1",
        "foo@=1",
        "@foo=1",
        "foo@@bar=1",
        "foo@bar@baz=1",
        "foo@1=1",
        "_foo=1",
        "foo",
        "=1",
        "foo=",
        "foo=bar=baz",
        "foo=\x7f",
        "foo=a\tb",
        "foo=a\nb",
        "foo=é",
        "foo=\ud800",
        "z" * 257 + "=1",
        "t" * 242 + "@v=1",
        "t@" + "v" * 15 + "=1",
        "a=" + "v" * 257,
    ],
)
def test_one_bad_member_spoils_the_tracestate(member: str) -> None:
    assert serve_state("first=1", member, "last=1") is None
    assert serve_state(f"{member},last=1") is None


def test_key_that_no_tracestate_of_opentelemetry_can_hold_costs_only_itself() -> None:
    assert serve_state("a=1,0digit=2,b=3") == "a=1,b=3"
    assert serve_state("0digit=2") is None


def members(count: int) -> Iterable[str]:
    return (f"key{number}={number}" for number in range(count))


def test_thirty_two_members_are_passed_on() -> None:
    assert serve_state(*members(32)) == ",".join(members(32))
    assert serve_state(",".join(members(32)) + ",") == ",".join(members(32))


@pytest.mark.parametrize("count", [33, 10_000])
def test_more_members_spoil_the_tracestate(count: int) -> None:
    assert serve_state(*members(count)) is None
    assert serve_state(",".join(members(count))) is None


def test_bad_headers_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    serve(("traceparent", PARENT), ("tracestate", "secret"), ("baggage", "secret,x=" + "y" * 5_000))
    serve(("traceparent", PARENT), ("tracestate", "a=1,a=2"), ("baggage", "é=secret"))
    assert not caplog.records
