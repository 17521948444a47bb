"use strict";

/* The page: its parts, and the keys that move between them. */

class Page {
  constructor(data) {
    this.data = data;
    this.panes = byId("panes");
    this.searchBox = byId("search");
    this.help = byId("help");
    this.traces = new Traces(data.live?.maxSpans);
    this.search = new Search();
    this.colours = new ServiceColours();
    this.theme = new Theme(() => this.redraw());
    this.range = new Range(
      this.theme,
      this.colours,
      oncePerFrame(() => this.view.render()),
    );
    this.list = new TraceList(this.traces, this.search, this.colours, (trace, options) =>
      this.showTrace(trace, options),
    );
    const select = (span, options) => this.showSpan(span, options);
    this.waterfall = new Waterfall(this.range, this.search, this.colours, select);
    this.flame = new Flame(this.range, this.search, this.colours, this.theme, select);
    this.details = new Details(this.traces, this.colours, {
      close: () => this.closeDetails(),
      go: (traceId, spanId) => this.goTo(traceId, spanId),
      search: (text) => this.searchFor(text),
    });
    this.#listen();
  }

  start() {
    if (this.data.live) {
      this.live = new Live(this.data.live, {
        add: (resources, rows) => this.add(resources, rows),
        clear: () => this.clear(),
      });
    } else {
      this.traces.add(
        this.data.resources.map((resource, number) => [number, resource]),
        this.data.spans,
      );
      // The rows are parsed; what they were parsed from is half of the page's memory.
      this.data.spans = null;
      byId("data").remove();
      byId("source").textContent =
        this.data.title + (this.data.leftOut ? ` · ${formatCount(this.data.leftOut, "span")} left out` : "");
      document.title = `${this.data.title} · tracekit`;
      for (const service of [...this.traces.services.keys()].sort()) this.colours.of(service);
    }
    this.list.refresh();
    this.#showNothing();
    this.openFromAddress();
    byId("traces").focus({ preventScroll: true });
  }

  get view() {
    return byId("flame").hidden ? this.waterfall : this.flame;
  }

  get trace() {
    return this.waterfall?.trace ?? null;
  }

  /** One pane at a time fits the screen. */
  get isNarrow() {
    return matchMedia("(max-width: 760px)").matches;
  }

  add(resources, rows) {
    const added = this.traces.add(resources, rows);
    this.search.askOf(added, (span) => this.traces.byId.get(span.traceId));
    this.list.refresh();
    if (!this.trace) this.openFromAddress();
    else if (added.some((span) => span.traceId === this.trace.id)) this.showTrace(this.trace, { isSame: true });
    this.#showNothing();
  }

  clear() {
    this.traces.clear();
    this.list.currentId = null;
    this.waterfall.clear();
    this.flame.clear();
    this.range.trace = null;
    this.details.show(null, null);
    byId("trace").hidden = true;
    this.list.refresh();
    this.#showNothing();
    this.#show("traces");
  }

  /** Show a trace; `enter` goes into it, `isSame` keeps what is current of it. */
  showTrace(trace, { enter = false, isSame = false } = {}) {
    const spans = trace.arranged();
    if (!isSame && trace === this.trace) {
      if (enter) this.enterTrace();
      return;
    }
    byId("trace").hidden = false;
    byId("nothing").hidden = true;
    this.#showHead(trace);
    this.range.show(trace, { keep: isSame });
    const current = isSame
      ? this.waterfall.current
      : this.search.isActive
        ? spans.find((span) => this.search.found(span))
        : null;
    this.waterfall.show(trace, current ?? spans[0]);
    this.flame.show(trace, current ?? spans[0]);
    if (current && !isSame) this.waterfall.go(current);
    else this.details.show(this.#showsDetails(isSame) ? this.waterfall.current : null, trace);
    this.#remember();
    if (enter) this.enterTrace();
  }

  /** Whether a trace comes with the details of its current span: not where they would hide it, or were closed. */
  #showsDetails(isSame) {
    if (isSame && this.details.span) return true;
    return !this.isNarrow && !this.panes.classList.contains("no-details");
  }

  enterTrace() {
    this.#show("trace");
    this.view.scroller.focus({ preventScroll: true });
  }

  /** Show what is known of a span; `enter` goes there. */
  showSpan(span, { enter = false, pointed = false } = {}) {
    this.waterfall.current = this.flame.current = span;
    if (enter || pointed) this.panes.classList.remove("no-details");
    if (!this.panes.classList.contains("no-details") && (enter || pointed || !this.isNarrow))
      this.details.show(span, this.trace);
    this.#remember();
    if (enter || (pointed && this.isNarrow)) {
      this.#show("details");
      this.details.focus();
    }
  }

  closeDetails() {
    this.panes.classList.add("no-details");
    this.details.show(null, null);
    this.enterTrace();
  }

  /** Go to a span by its ids. */
  goTo(traceId, spanId) {
    const trace = this.traces.byId.get(traceId);
    const span = trace?.arranged().find((other) => other.id === spanId);
    if (!span) return false;
    const index = this.list.shown.indexOf(trace);
    if (trace !== this.trace) {
      if (index >= 0) this.list.choose(index);
      else this.showTrace(trace);
    }
    this.view.go(span, { pointed: true });
    return true;
  }

  /** Open what the address names (#trace=...&span=...), or the first trace where there is room for it. */
  openFromAddress() {
    const named = new URLSearchParams(location.hash.slice(1));
    const index = this.list.shown.findIndex((trace) => trace.id === named.get("trace"));
    if (index >= 0) {
      this.list.choose(index, { enter: this.isNarrow });
      if (named.get("span")) this.goTo(named.get("trace"), named.get("span"));
    } else if (!this.isNarrow && this.list.shown.length) {
      this.list.choose(0);
    }
  }

  searchFor(text) {
    this.searchBox.value = text;
    this.#ask();
    this.#show("traces");
    this.searchBox.focus();
  }

  redraw() {
    if (!this.trace) return;
    this.range.plan();
    this.flame.plan();
  }

  showView(name) {
    for (const other of ["waterfall", "flame"]) {
      const isShown = other === name;
      byId(other).hidden = !isShown;
      byId(`tab-${other}`).setAttribute("aria-selected", isShown);
      byId(`tab-${other}`).tabIndex = isShown ? 0 : -1;
    }
    byId("trace").dataset.view = name;
    byId("tip").hidden = true;
    if (!this.trace) return;
    this.range.plan();
    this.view.go(this.waterfall.current);
    this.view.render();
  }

  async #ask() {
    const isCurrent = await this.search.ask(this.searchBox.value, this.traces.byId.values(), () => this.list.refresh());
    if (!isCurrent) return;
    this.list.scroller.scrollTop = 0;
    this.list.refresh();
    if (this.trace) this.view.render();
    if (this.search.isActive) say(byId("summary").textContent);
    this.#showNothing();
  }

  #show(pane) {
    this.panes.dataset.shown = pane;
  }

  #showHead(trace) {
    const dot = (service) => {
      const made = element("i", { class: "dot" });
      made.style.background = `var(${this.colours.of(service)})`;
      return element("span", { class: "service" }, made, service || "(no service)");
    };
    byId("trace-name").textContent = trace.name;
    byId("trace-facts").replaceChildren(
      element("span", { class: "figure" }, formatDuration(trace.duration)),
      element("span", {}, formatCount(trace.spans.length, "span")),
      ...(trace.errors ? [element("span", { class: "error" }, formatCount(trace.errors, "error"))] : []),
      element("span", { class: "when" }, formatTime(trace.ms)),
      copyButton(trace.id),
    );
    const services = [...trace.services];
    byId("legend").replaceChildren(
      ...services.slice(0, 8).map(dot),
      ...(services.length > 8 ? [element("span", { class: "service" }, `+${services.length - 8}`)] : []),
    );
  }

  #showNothing() {
    const box = byId("nothing");
    box.hidden = Boolean(this.trace);
    if (this.trace) return;
    const isEmpty = this.traces.byId.size === 0;
    box.replaceChildren(
      ...(isEmpty && this.data.live
        ? waitingText(this.data.live)
        : [
            element("h2", {}, isEmpty ? "No spans in here" : "No trace is open"),
            element("p", {}, isEmpty ? "The files that this page was made of hold none." : "Choose one of the list."),
          ]),
    );
    this.panes.classList.toggle("empty", isEmpty);
  }

  /** Name what is open in the address, once it has been open for a moment: browsers bound how often it may change. */
  #remember() {
    clearTimeout(this.remembering);
    this.remembering = setTimeout(() => {
      if (!this.trace) return;
      const span = this.waterfall.current;
      try {
        history.replaceState(null, "", `#trace=${this.trace.id}${span ? `&span=${span.id}` : ""}`);
      } catch {
        // Some browsers let no page of a file do it.
      }
    }, 150);
  }

  #listen() {
    let timer = 0;
    this.searchBox.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#ask(), 120);
    });
    byId("tab-waterfall").addEventListener("click", () => this.showView("waterfall"));
    byId("tab-flame").addEventListener("click", () => this.showView("flame"));
    byId("help-open").addEventListener("click", () => this.help.showModal());
    byId("help-close").addEventListener("click", () => this.help.close());
    document.querySelector("[data-back]").addEventListener("click", () => {
      this.#show("traces");
      this.list.scroller.focus({ preventScroll: true });
    });
    document.addEventListener("keydown", (event) => this.#press(event));
    window.addEventListener("hashchange", () => this.openFromAddress());
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.help.open) return;
    const inSearch = event.target === this.searchBox;
    const inField = event.target.closest("input, select, textarea");
    const isTaken =
      event.key === "Escape"
        ? this.#leave(inSearch)
        : inSearch
          ? this.#pressInSearch(event.key)
          : !inField && this.#pressAnywhere(event);
    if (isTaken) event.preventDefault();
  }

  #pressInSearch(key) {
    if (key !== "Enter" && key !== "ArrowDown") return false;
    this.list.scroller.focus({ preventScroll: true });
    if (this.list.index < 0) this.list.choose(0);
    return true;
  }

  #pressAnywhere({ key, target }) {
    const actions = {
      "/": () => {
        this.#show("traces");
        this.searchBox.focus();
        this.searchBox.select();
      },
      "?": () => this.help.showModal(),
      t: () => this.theme.next(),
    };
    if (this.trace) {
      Object.assign(actions, {
        f: () => {
          this.showView(this.view === this.flame ? "waterfall" : "flame");
          if (target.closest("#waterfall, #flame")) this.enterTrace();
        },
        n: () => this.#goToNext(1),
        p: () => this.#goToNext(-1),
        z: () => this.range.fit(this.waterfall.current),
        "+": () => this.range.zoom(1 / ZOOM_STEP, this.#currentPlace()),
        "=": () => this.range.zoom(1 / ZOOM_STEP, this.#currentPlace()),
        "-": () => this.range.zoom(ZOOM_STEP, this.#currentPlace()),
        0: () => this.range.all(),
        "[": () => this.range.move(-0.2),
        "]": () => this.range.move(0.2),
      });
    }
    if (Object.hasOwn(actions, key)) {
      actions[key]();
      return true;
    }
    if (target.closest("#traces")) return this.list.press(key);
    if (target.closest("#waterfall, #flame") && this.trace) return this.view.press(key);
    if (target.closest("[role=tablist]") && (key === "ArrowLeft" || key === "ArrowRight")) {
      this.showView(this.view === this.flame ? "waterfall" : "flame");
      byId(`tab-${this.view.scroller.id}`).focus();
      return true;
    }
    return false;
  }

  /** Esc: out of the search, the details, the trace; one at a time. */
  #leave(inSearch) {
    const active = document.activeElement;
    if (inSearch && this.searchBox.value) {
      this.searchBox.value = "";
      this.#ask();
    } else if (active?.closest("#details")) {
      if (this.isNarrow) this.closeDetails();
      else this.enterTrace();
    } else if (
      active?.closest("#waterfall, #flame") &&
      !this.details.pane.hidden &&
      !this.isNarrow &&
      this.#isOverlaid
    ) {
      this.closeDetails();
    } else {
      this.#show("traces");
      this.list.scroller.focus({ preventScroll: true });
    }
    return true;
  }

  /** The details lie over the trace, where there is no room beside it. */
  get #isOverlaid() {
    return matchMedia("(max-width: 1100px)").matches;
  }

  /** Where zooming by keys zooms to: where the current span is, if it is in sight. */
  #currentPlace() {
    const span = this.waterfall.current;
    const place = span ? this.range.place(span.start + span.duration / 2) : 0.5;
    return place >= 0 && place <= 1 ? place : 0.5;
  }

  /** Go to the next span that the search has found, or the next error. */
  #goToNext(step) {
    const spans = this.trace.arranged();
    const isWanted = this.search.isActive ? (span) => this.search.found(span) : (span) => span.status === ERROR;
    const from = spans.indexOf(this.waterfall.current);
    for (let away = 1; away <= spans.length; away++) {
      const span = spans[(from + step * away + spans.length * 2) % spans.length];
      if (!isWanted(span)) continue;
      this.view.go(span);
      return;
    }
    say(this.search.isActive ? "Nothing found in this trace" : "No errors in this trace");
  }
}

const page = new Page(JSON.parse(byId("data").textContent));
page.start();
