"""The page of traces: what is in the file, and what a browser makes of it."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_samples import HOSTILE, NOON_NS, hostile_spans, many_spans, shop_spans

import tracekit
from tracekit.cli import main
from tracekit.export.record import EventRecord, SpanRecord
from tracekit.view.page import save_page, write_page

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from browser import Tab

TRACE: Final = "a" * 32


def page_of(spans: Iterable[SpanRecord], **more: Any) -> str:
    out = io.BytesIO()
    write_page(out, spans, title="t", **more)
    return out.getvalue().decode("utf-8")


def data_of(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def span(number: int = 1, **more: Any) -> SpanRecord:
    values = {
        "trace_id": TRACE,
        "span_id": f"{number:016x}",
        "name": f"span {number}",
        "start_time_ns": NOON_NS,
        **more,
    }
    return SpanRecord(**{"end_time_ns": values["start_time_ns"] + 1_000_000, **values})


def test_nothing_runs_but_the_code_whose_hash_the_policy_names() -> None:
    page = page_of(hostile_spans())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    for directive, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[directive] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["connect-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_the_pages_code_makes_no_html_of_text() -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", page_of([]), re.DOTALL)
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
        ".href =",
    ):
        assert way not in script
    assert not re.search(r"<[^>]+\son\w+=", page_of([]).replace(script, ""))


def test_no_text_of_a_trace_leaves_its_place_in_the_page() -> None:
    calm, hostile = page_of([]), page_of(hostile_spans())
    start = calm.index('<script type="application/json" id="data">')
    end = calm.index("</script>", start)
    assert hostile.startswith(calm[:start])
    assert hostile.endswith(calm[end:])
    inside = hostile[start + len('<script type="application/json" id="data">') : len(hostile) - len(calm) + end]
    assert inside.isascii()
    assert not set("<>&") & set(inside)
    assert [row[3] for row in data_of(hostile)["spans"]][:5] == list(HOSTILE[:5])


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_any_value_stands_in_the_page_as_json(value: Any) -> None:
    text = value if isinstance(value, str) else "x"
    page = page_of(
        [span(name=text, description=text, attributes={text: value}, events=(EventRecord(text, 5, {"k": value}),))]
    )
    assert data_of(page)["spans"][0][3] == text


def test_a_span_of_endless_text_is_cut() -> None:
    attributes = {f"key {number}": "x" * 1_000_000 for number in range(5)} | {
        f"n{number}": number for number in range(9_000)
    }
    events = tuple(EventRecord("e" * 100_000, number) for number in range(5_000))
    page = page_of([span(attributes=attributes, events=events)])
    assert len(page) - len(page_of([])) < 400_000
    row = data_of(page)["spans"][0]
    assert row[13][1].endswith("… (1,000,000 characters)")
    assert row[13][-1] == ["note", "8,749 more"]
    assert row[16] == 5_000


def test_spans_beyond_what_a_browser_should_hold_are_counted() -> None:
    data = data_of(page_of(many_spans(100), max_spans=60))
    assert (len(data["spans"]), data["leftOut"]) == (60, 40)


def test_a_page_that_cannot_be_finished_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    def broken() -> Iterable[SpanRecord]:
        yield span()
        raise OSError(errno.ENOSPC, "the disk is full")

    path = tmp_path / "page.html"
    path.write_text("before")
    with pytest.raises(OSError, match="the disk is full"):
        save_page(path, broken(), title="t")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_page_is_its_owners(tmp_path: Path) -> None:
    save_page(tmp_path / "page.html", [span()], title="t")
    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o600


def test_a_trace_is_found_and_its_failure_explained(tab: Tab, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    save_page(path, shop_spans(), title="traces.jsonl")
    tab.page.goto(path.as_uri())
    assert tab.text("#summary") == "40 traces · 455 spans · 4 with errors"
    tab.page.click("#only-errors")
    tab.wait("document.querySelector('#summary').textContent.startsWith('4 of')")
    tab.press("Tab")
    tab.page.locator(".trace-row:visible").first.click()
    assert tab.text("#trace-name") == "POST /orders"
    assert len(tab.texts(".span-row")) == 8
    tab.press("n", "n")
    assert "CardDeclined: insufficient funds" in tab.text("#details .error-box")
    assert "currency" in tab.text("#details .pairs")
    assert tab.requests == [tab.page.url.partition("#")[0]]


def test_the_command_writes_the_page_of_the_traces_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "traces.jsonl", tmp_path / "traces.html"
    with tracekit.configure(service="shop", version="3", exporter=f"file:{file}"):
        with tracekit.traced_block("orders.create", {"order.id": 7}, kind="server"):
            pass
        with pytest.raises(KeyError), tracekit.traced_block("orders.cancel"):
            raise KeyError
    assert main(["view", "--html", str(out), str(file)]) == 0
    data = data_of(out.read_text())
    assert [(row[3], row[4], row[11].split()[0]) for row in data["spans"]] == [
        ("orders.create", "server", "tracekit"),
        ("orders.cancel", "internal", "tracekit"),
    ]
    assert data["title"] == "traces.jsonl"
    assert data["resources"][0][0] == "shop"
    assert "service.version" in data["resources"][0][1]
    assert main(["view", "--errors", "--html", str(out), str(file)]) == 0
    assert [row[3] for row in data_of(out.read_text())["spans"]] == ["orders.cancel"]
    assert capsys.readouterr() == ("", "")


def test_the_command_writes_no_page_over_what_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "traces.jsonl"
    with tracekit.configure(service="shop", exporter=f"file:{file}"), tracekit.traced_block("orders.create"):
        pass
    before = file.read_bytes()
    assert main(["view", "--html", str(file), str(file)]) == 2
    assert main(["view", "--html", str(tmp_path / "no" / "such.html"), str(file)]) == 2
    assert main(["view", "--follow", "--html", str(tmp_path / "page.html"), str(file)]) == 2
    _, missing, _ = capsys.readouterr().err.splitlines()
    assert missing.startswith(f"tracekit view: {tmp_path / 'no' / 'such.html'}: ")
    assert file.read_bytes() == before
