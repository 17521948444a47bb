"""The page of traces in a browser: what is seen, found, opened, zoomed, typed; and that nothing hostile runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from page_scripts import FOCUS_IS_SEEN, LONG_TASKS, NAMELESS, SPAN_NAMES, TOO_FAINT, TOO_WIDE
from trace_samples import HOSTILE, NOON_NS, hostile_spans, many_spans, shop_spans

from tracekit.export.record import LinkRecord, SpanRecord
from tracekit.view.page import save_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from browser import Tab

    Open = Callable[[Iterable[SpanRecord]], None]

pytestmark = pytest.mark.slow

TRACE: Final = "a" * 32


@pytest.fixture
def show(tab: Tab, tmp_path: Path) -> Open:
    """Opens the page of spans, from a file."""

    def show(spans: Iterable[SpanRecord], address: str = "") -> None:
        path = tmp_path / "page.html"
        save_page(path, spans, title="traces.jsonl")
        tab.page.goto(path.as_uri() + address)
        tab.wait("document.activeElement?.id === 'traces'")

    return show


def span(number: int = 1, **more: Any) -> SpanRecord:
    values = {
        "trace_id": TRACE,
        "span_id": f"{number:016x}",
        "name": f"span {number}",
        "start_time_ns": NOON_NS,
        **more,
    }
    return SpanRecord(**{"end_time_ns": values["start_time_ns"] + 1_000_000, **values})


def test_hostile_text_is_shown_as_text(tab: Tab, show: Open) -> None:
    show(hostile_spans())
    for number in range(tab.run("document.querySelector('#traces .trace-row').ariaSetSize | 0")):
        tab.press(*(["Home"] if not number else ["ArrowDown"]))
        tab.press("Enter", "f", "f", "Enter", "Escape")
        for fold in tab.page.locator("#details summary").all():
            fold.click()
        while tab.count("#details .more"):
            tab.page.locator("#details .more").first.click()
        tab.press("Escape", "Escape")
        tab.page.focus("#traces")
    for text in HOSTILE[:13]:
        tab.page.fill("#search", text)
        tab.wait("document.querySelector('#summary').textContent.includes('found')")
    assert tab.run("window.hacked") is None
    assert tab.count("img, iframe, object, embed, a, form, base, link:not([rel=icon])") == 0
    assert tab.count("script") == 1  # the data has been read and removed
    assert tab.run("({}).text") is None
    assert len(tab.requests) == 1


def test_text_is_shown_as_it_came(tab: Tab, show: Open) -> None:
    name = HOSTILE[0]
    show([span(name=name, attributes={"__proto__": name, "constructor": 5, "big": 2**63, "on": True, "none": None})])
    assert tab.text("#trace-name") == name
    assert tab.text(".span-row .name") == name
    pairs = dict(zip(tab.texts("#details .pairs dt"), tab.texts("#details .pairs dd"), strict=True))
    assert pairs["__proto__"].strip() == name
    assert [pairs[key].strip() for key in ("constructor", "big", "on", "none")] == ["5", str(2**63), "true", "null"]


def test_what_is_not_seen_is_written_out(tab: Tab, show: Open) -> None:
    show([span(name="pay\u202eevil\x1b[31m", attributes={"k\u200b": "line\nnext \u2066x"})])
    assert tab.text("#trace-name") == r"pay\u{202e}evil\u{1b}[31m"
    assert tab.text("#details .pairs dt") == r"k\u{200b}"
    assert tab.text("#details .pairs .text") == "line\nnext \\u{2066}x"


def test_families_that_cannot_be_are_shown_whole(tab: Tab, show: Open) -> None:
    show(one for one in hostile_spans() if one.trace_id == "f" * 32)
    assert sorted(tab.texts(".span-row .name")) == [f"family {number}" for number in range(6)]
    tab.press("Enter", "f", "ArrowDown", "ArrowRight", "z", "+", "0", "f")


def test_the_tree_folds_by_keys_and_by_the_mouse(tab: Tab, show: Open) -> None:
    show([span(1), span(2, parent_id=f"{1:016x}"), span(3, parent_id=f"{2:016x}"), span(4, parent_id=f"{1:016x}")])
    tab.press("Enter")
    assert tab.has_focus("#waterfall")

    def names() -> Any:
        return tab.run(SPAN_NAMES)

    assert names() == ["span 1", "span 2", "span 3", "span 4"]
    tab.press("ArrowDown", "ArrowLeft")
    assert names() == ["span 1", "span 2", "span 4"]
    assert tab.run("document.querySelector('[aria-selected=true].span-row').ariaExpanded") == "false"
    tab.press("ArrowLeft", "ArrowLeft")
    assert names() == ["span 1"]
    assert tab.text(".span-row .folded") == "+3"
    tab.press("ArrowRight")
    tab.page.locator(".span-row", has_text="span 2").locator(".twisty").click()
    assert names() == ["span 1", "span 2", "span 3", "span 4"]
    tab.press("End")
    assert tab.text("#details h3") == "span 4"
    # What folds away above the current span takes the selection.
    tab.page.locator(".span-row", has_text="span 1").locator(".twisty").click()
    assert tab.text("#details h3") == "span 1"


def test_the_search_asks_for_words_attributes_services_outcomes_and_times(tab: Tab, show: Open) -> None:
    show(shop_spans())

    def found(query: str) -> str:
        tab.page.fill("#search", query)
        tab.wait(
            f"page.search.query === {query!r} && !document.querySelector('#summary').textContent.includes(' spans ·')"
        )
        return tab.text("#summary")

    assert found("order.id=3") == "1 of 40 traces · 1 span found"
    assert found("order.id=399") == "0 of 40 traces · 0 spans found"
    assert found("SERVICE:mailer kind:consumer") == "36 of 40 traces · 36 spans found"
    assert found("status:error -post") == "4 of 40 traces · 8 spans found"
    assert found('"insufficient funds" name:charge') == "4 of 40 traces · 4 spans found"
    assert found("name:stock >1s") == "0 of 40 traces · 0 spans found"
    tab.press("Escape")
    tab.wait("document.querySelector('#summary').textContent.startsWith('40 traces')")


def test_what_is_not_found_is_dimmed_and_n_goes_to_what_is(tab: Tab, show: Open) -> None:
    show(shop_spans())
    tab.page.fill("#search", "publish")
    tab.wait("document.querySelector('#summary').textContent.includes('found')")
    tab.press("Enter", "Enter", "n")
    assert tab.text("#details h3") == "orders publish"
    assert tab.run("document.querySelectorAll('.span-row:not([hidden]):not(.unfound)').length") == 1


def test_it_zooms_by_keys_buttons_the_wheel_and_a_drag(tab: Tab, show: Open) -> None:
    show([span(1, end_time_ns=NOON_NS + 10**9), span(2, parent_id=f"{1:016x}", start_time_ns=NOON_NS + 10**8)])

    def length() -> Any:
        return tab.run("page.range.length")

    assert length() == 10**9
    tab.press("+", "+")
    assert length() == pytest.approx(10**9 / 1.6**2)
    assert "of 1s" in tab.text("#range")
    tab.press("-", "0")
    assert length() == 10**9
    tab.press("Enter", "ArrowDown", "z")
    assert length() == pytest.approx(1_000_000 * 1.16)
    tab.page.click("#zoom-all")
    tab.page.click("#zoom-in")
    assert length() == pytest.approx(10**9 / 1.6)
    tab.press("0")
    box = tab.page.locator("#minimap").bounding_box()
    assert box is not None
    tab.page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 20, steps=3)
    tab.page.mouse.up()
    assert length() == pytest.approx(10**9 / 2, rel=0.01)
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 120)
    tab.page.keyboard.down("Control")
    tab.page.mouse.wheel(0, -50)
    tab.page.keyboard.up("Control")
    tab.wait("page.range.length < 4e8")
    tab.press("]")
    assert tab.run("page.range.to") <= 10**9


def test_the_flame_chart_is_walked_by_keys_and_hit_by_the_mouse(tab: Tab, show: Open) -> None:
    late = NOON_NS + 8 * 10**8
    show(
        [
            span(1, end_time_ns=NOON_NS + 10**9),
            span(2, parent_id=f"{1:016x}"),
            span(3, parent_id=f"{1:016x}", start_time_ns=late, end_time_ns=NOON_NS + 10**9),
        ]
    )
    tab.page.click("#tab-flame")
    tab.page.focus("#flame")
    tab.press("ArrowDown")
    assert tab.text("#details h3") == "span 2"
    tab.press("ArrowRight")
    assert tab.text("#details h3") == "span 3"
    tab.press("ArrowUp")
    assert tab.text("#details h3") == "span 1"
    box = tab.page.locator("#flame-canvas").bounding_box()
    assert box is not None
    tab.page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 33)
    assert tab.text("#tip b") == "span 3"
    tab.page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + 33)
    assert tab.text("#details h3") == "span 3"


def test_keys_lead_from_the_list_to_the_details_and_back(tab: Tab, show: Open) -> None:
    show(shop_spans())
    tab.press("ArrowDown", "Enter")
    assert tab.has_focus("#waterfall")
    tab.press("ArrowDown", "Enter")
    assert tab.has_focus("#details")
    tab.press("Escape")
    assert tab.has_focus("#waterfall")
    tab.press("Escape")
    assert tab.has_focus("#traces")
    tab.press("/")
    assert tab.has_focus("#search")
    tab.page.keyboard.type("t?f")
    assert tab.run("document.querySelector('#search').value") == "t?f"
    tab.press("Escape", "Escape", "?")
    assert tab.run("document.querySelector('#help').open")
    tab.press("Escape")
    assert not tab.run("document.querySelector('#help').open")


def test_where_the_keyboard_is_can_be_seen(tab: Tab, show: Open) -> None:
    show(shop_spans())
    tab.press("ArrowDown")
    outline = "getComputedStyle(document.querySelector('{}')).outlineStyle"
    assert tab.run(outline.format("#traces [aria-selected=true]")) == "solid"
    tab.press("Enter")
    assert tab.run(outline.format("#waterfall [aria-selected=true]")) == "solid"
    seen = set()
    for _ in range(30):
        tab.press("Tab")
        seen.add(tab.run("document.activeElement.id"))
        assert tab.run(FOCUS_IS_SEEN)
    assert {"search", "theme", "only-errors", "traces"} <= seen


def test_controls_have_names_and_lists_say_where_one_is(tab: Tab, show: Open) -> None:
    show(shop_spans())
    tab.press("Enter", "ArrowDown")
    assert tab.run(NAMELESS) == []
    active = tab.run("document.getElementById(document.activeElement.getAttribute('aria-activedescendant')).ariaLabel")
    assert active.startswith("orders.create, orders, ")
    row = "document.querySelector('#waterfall [aria-selected=true]')"
    assert [tab.run(f"{row}.{name}") for name in ("ariaLevel", "ariaPosInSet", "ariaExpanded")] == [
        "2",
        "2",
        "true",
    ]


def test_it_is_light_or_dark_as_the_system_is_until_told(tab: Tab, show: Open) -> None:
    show(shop_spans())
    light = tab.run("getComputedStyle(document.body).backgroundColor")
    tab.page.emulate_media(color_scheme="dark")
    dark = tab.run("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    tab.press("t")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == light
    tab.page.reload()
    tab.wait("document.activeElement?.id === 'traces'")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == light
    tab.page.click("#theme")
    assert tab.run("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(tab: Tab, show: Open, scheme: Any) -> None:
    tab.page.emulate_media(color_scheme=scheme)
    show(shop_spans())
    tab.page.click("#only-errors")
    tab.press("Tab")
    tab.page.focus("#traces")
    tab.press("Home", "Enter", "n", "n")
    assert tab.run(TOO_FAINT) == []


def test_the_address_names_the_span(tab: Tab, show: Open) -> None:
    show(shop_spans())
    tab.press("ArrowDown", "Enter", "ArrowDown", "ArrowDown")
    tab.wait("location.hash.endsWith(page.waterfall.current.id)")
    name, address = tab.text("#details h3"), tab.page.url
    tab.page.goto("about:blank")
    tab.page.goto(address)
    tab.wait("document.activeElement?.id === 'traces'")
    assert tab.text("#details h3") == name
    tab.run("location.hash = '#trace=<img src=x onerror=window.hacked=1>&span=__proto__'")
    assert tab.run("window.hacked") is None


def test_ids_are_copied_for_logs(tab: Tab, show: Open) -> None:
    show([span(7)])
    tab.page.click("#details .copy >> nth=2")
    tab.wait("document.querySelector('#said').textContent === 'Copied'")
    assert tab.run("navigator.clipboard.readText()") == f"trace_id={TRACE} span_id={7:016x}"


def test_a_failure_leads_to_where_it_began(tab: Tab, show: Open) -> None:
    show(shop_spans())
    tab.page.click("#only-errors")
    tab.page.locator(".trace-row:visible").first.click()
    assert tab.text("#details h3") == "POST /orders"
    assert tab.text("#details .cause") == "First failed in payments.charge: CardDeclined: insufficient funds"
    tab.page.click("#details .cause .go")
    assert tab.text("#details h3") == "payments.charge"
    tab.page.click("#details .stack summary")
    assert "gateway.py" in tab.text("#details pre")


def test_links_lead_to_spans_that_are_here(tab: Tab, show: Open) -> None:
    links = (LinkRecord("b" * 32, "c" * 16), LinkRecord("d" * 32, "e" * 16))
    show(
        [
            span(1, links=links),
            SpanRecord("b" * 32, "c" * 16, "the linked", start_time_ns=NOON_NS - 10**9, end_time_ns=NOON_NS),
        ]
    )
    assert "not here" in tab.text("#details .links li:nth-child(2)")
    tab.page.click("#details .links .go")
    assert tab.text("#details h3") == "the linked"
    assert tab.text("#trace-name") == "the linked"


def test_clicking_the_search_of_an_attribute_finds_its_like(tab: Tab, show: Open) -> None:
    show(
        [
            span(1, attributes={"customer": "Ada Lovelace"}),
            span(2, trace_id="b" * 32, attributes={"customer": "Bob"}),
        ]
    )
    tab.page.locator(".trace-row", has_text="span 1").click()
    tab.page.hover("#details .pair")
    tab.page.click("#details .find")
    tab.wait("document.querySelector('#summary').textContent === '1 of 2 traces · 1 span found'")


def test_long_text_is_shown_in_part_until_asked_for(tab: Tab, show: Open) -> None:
    show([span(1, attributes={"body": "x" * 50_000})])
    assert len(tab.text("#details .pairs .text")) < 1_300
    tab.page.click("#details .more")
    assert len(tab.text("#details .pairs .text")) == 50_000


def test_an_empty_file_says_so(tab: Tab, show: Open) -> None:
    show([])
    assert "No spans in here" in tab.text("#nothing")


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (820, 1180), (390, 844), (320, 568)])
def test_it_fits_screens_of_all_sizes(tab: Tab, show: Open, width: int, height: int) -> None:
    tab.page.set_viewport_size({"width": width, "height": height})
    show([*shop_spans(), *hostile_spans()])
    assert tab.run(TOO_WIDE) == []
    tab.page.locator(".trace-row:visible").first.click()
    assert tab.page.locator("#waterfall").is_visible()
    assert tab.run(TOO_WIDE) == []
    tab.page.locator(".span-row:visible").nth(1 if width == 1440 else 0).click()
    assert tab.page.locator("#details").is_visible()
    assert tab.run(TOO_WIDE) == []
    if width < 760:
        tab.page.locator("#details .back").click()
        assert tab.page.locator("#waterfall").is_visible()
        tab.page.locator("#trace .back").click()
        assert tab.page.locator("#traces").is_visible()


@pytest.mark.parametrize("per_trace", [50, 50_000])
def test_fifty_thousand_spans_take_few_elements(tab: Tab, show: Open, per_trace: int, record_property: Any) -> None:
    tab.page.add_init_script(LONG_TASKS)
    show(many_spans(50_000, per_trace=per_trace))
    assert "50,000 spans" in tab.text("#summary")
    most = 0
    drawn = "document.querySelectorAll('*').length"
    tab.press("Enter")
    for _ in range(20):
        tab.press("PageDown")
        most = max(most, tab.run(drawn))
    for place in (0.1, 0.5, 0.9, 1):
        tab.run(f"const w = document.querySelector('#waterfall'); w.scrollTop = w.scrollHeight * {place}")
        tab.run(f"const t = document.querySelector('#traces'); t.scrollTop = t.scrollHeight * {place}")
        tab.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        most = max(most, tab.run(drawn))
    tab.press("End", "+", "+", "+", "z", "0", "f", "+", "ArrowUp", "f")
    tab.page.fill("#search", "order.id=49999")
    tab.wait("document.querySelector('#summary').textContent.includes('1 span found')")
    most = max(most, tab.run(drawn))
    # Some 30 rows of 16 elements, and the page around them.
    assert most < 1_500
    assert tab.run("page.traces.spanCount") == 50_000
    record_property("elements", most)
    record_property("long_tasks_ms", tab.run("tasks"))
