"""The live page of `tracekit serve`, in a browser."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from trace_samples import hostile_spans, many_spans, shop_spans

from tracekit.view.server import HttpServer
from tracekit.view.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from browser import Tab

pytestmark = pytest.mark.slow

COUNTS = "document.querySelector('#summary').textContent"


class Desk:
    """The server of a live page, which a test can stop."""

    def __init__(self, store: Store, port: int = 0, max_spans: int = 1_000) -> None:
        self.store = store
        self._server = HttpServer(store, "127.0.0.1", port, max_spans=max_spans)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    store = Store(max_spans=1_000)
    desk = Desk(store)
    yield desk
    desk.close()
    store.close()


def test_an_empty_page_says_where_to_send_and_shows_what_comes(tab: Tab, desk: Desk) -> None:
    tab.page.goto(desk.url)
    tab.wait("document.activeElement?.id === 'traces'")
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{desk.port}" in tab.text("#nothing")
    spans = shop_spans(3)
    desk.store.add(spans[:10])
    tab.wait(f"{COUNTS} === '1 trace · 10 spans'")
    assert tab.text("#trace-name") == "POST /orders"
    desk.store.add(spans[10:])
    tab.wait(f"{COUNTS}.startsWith('3 traces')")
    assert set(tab.requests) <= {desk.url} | {url for url in tab.requests if url.startswith(f"{desk.url}api/spans")}


def test_spans_that_come_late_join_the_trace_that_is_open(tab: Tab, desk: Desk) -> None:
    spans = shop_spans(1)
    desk.store.add(spans[1:4])
    tab.page.goto(desk.url)
    tab.wait("document.querySelectorAll('.span-row:not([hidden])').length === 3")
    tab.press("Enter", "ArrowDown")
    chosen = tab.text("#details h3")
    desk.store.add([spans[0], *spans[4:]])
    tab.wait(f"document.querySelectorAll('.span-row:not([hidden])').length === {len(spans)}")
    assert tab.text("#trace-name") == "POST /orders"
    assert tab.text("#details h3") == chosen
    assert tab.has_focus("#waterfall")


def test_a_search_finds_what_comes_later(tab: Tab, desk: Desk) -> None:
    tab.page.goto(desk.url)
    tab.page.fill("#search", "order.id=2")
    tab.wait("page.search.isActive")
    desk.store.add(shop_spans(3))
    tab.wait(f"{COUNTS} === '1 of 3 traces · 1 span found'")


def test_clear_forgets_everything_on_all_pages(tab: Tab, desk: Desk) -> None:
    desk.store.add(shop_spans(3))
    tab.page.goto(desk.url)
    tab.wait(f"{COUNTS}.startsWith('3 traces')")
    other = tab.page.context.new_page()
    other.goto(desk.url)
    tab.page.click("#clear")
    tab.wait(f"{COUNTS} === '0 traces · 0 spans'")
    assert desk.store.counts == (0, 0)
    assert not tab.page.locator("#details").is_visible()
    other.get_by_text("Waiting for spans").wait_for()
    desk.store.add(shop_spans(1))
    tab.wait(f"{COUNTS} === '1 trace · 10 spans'")


def test_the_page_forgets_the_oldest_traces_as_the_server_does(tab: Tab, desk: Desk) -> None:
    tab.page.goto(desk.url)
    tab.wait("document.activeElement?.id === 'traces'")
    for number in range(3):
        desk.store.add([span for span in many_spans(1_500) if int(span.span_id, 16) // 500 == number])
        tab.wait(f"page.live.next >= {500 * number}")
    tab.wait("page.traces.byId.has((30).toString(16).padStart(32, '0'))")
    tab.wait("page.traces.spanCount <= 1000 && !page.traces.byId.has('1'.padStart(32, '0'))")


def test_the_page_says_that_the_server_has_gone_and_finds_the_next_one(tab: Tab) -> None:
    store = Store()
    desk = Desk(store)
    store.add(shop_spans(3))
    tab.page.goto(desk.url)
    tab.wait(f"{COUNTS}.startsWith('3 traces')")
    port = desk.port
    desk.close()
    tab.wait("document.querySelector('#source').textContent === 'The server is gone'")
    assert tab.text("#trace-name") == "POST /orders"
    other = Store()
    other.add(shop_spans(1))
    desk = Desk(other, port)
    tab.run("page.live.poll()")
    tab.wait(f"{COUNTS} === '1 trace · 10 spans'")
    assert tab.text("#source").startswith("Live")
    desk.close()
    # The browser tells of each connection that was refused.
    tab.complaints[:] = [complaint for complaint in tab.complaints if "ERR_CONNECTION_REFUSED" not in complaint]
    store.close()
    other.close()


def test_hostile_spans_are_text_on_the_live_page_too(tab: Tab, desk: Desk) -> None:
    desk.store.add(list(hostile_spans()))
    tab.page.goto(desk.url)
    tab.wait(f"{COUNTS}.startsWith('16 traces')")
    for _ in range(16):
        tab.press("Enter", "Escape", "ArrowDown")
    assert tab.run("window.hacked") is None
    assert tab.count("img, iframe, object, embed, a, form, base") == 0
