"use strict";

/* The list of traces. */

const TRACE_ROW_HEIGHT = 58;

const ORDERS = {
  newest: (a, b) => b.ms - a.ms || b.ns - a.ns,
  oldest: (a, b) => a.ms - b.ms || a.ns - b.ns,
  slowest: (a, b) => b.duration - a.duration,
  largest: (a, b) => b.spans.length - a.spans.length,
  errors: (a, b) => b.errors - a.errors || b.ms - a.ms,
};

class TraceList {
  /**
   * @param traces the Traces
   * @param search the Search
   * @param colours the ServiceColours
   * @param open (trace, { enter }) is called for the trace that becomes current
   */
  constructor(traces, search, colours, open) {
    this.traces = traces;
    this.search = search;
    this.colours = colours;
    this.open = open;
    this.shown = [];
    this.currentId = null;
    this.longest = 0;
    this.scroller = byId("traces");
    this.errorsButton = byId("only-errors");
    this.serviceSelect = byId("service");
    this.orderSelect = byId("order");
    this.rows = new Rows(
      this.scroller,
      TRACE_ROW_HEIGHT,
      () => this.#makeRow(),
      (row, index) => this.#showRow(row, index),
    );
    this.errorsButton.addEventListener("click", () => {
      this.errorsButton.setAttribute("aria-pressed", !this.onlyErrors);
      this.refresh();
    });
    for (const select of [this.serviceSelect, this.orderSelect]) {
      select.addEventListener("change", () => {
        this.scroller.scrollTop = 0;
        this.refresh();
      });
    }
    this.scroller.addEventListener("click", (event) => {
      const row = event.target.closest(".trace-row");
      if (row) this.choose(Number(row.dataset.index), { enter: true });
    });
  }

  get onlyErrors() {
    return this.errorsButton.getAttribute("aria-pressed") === "true";
  }

  get index() {
    return this.shown.findIndex((trace) => trace.id === this.currentId);
  }

  /** Make the trace at `index` the current one; `enter` goes into it. */
  choose(index, { enter = false } = {}) {
    const trace = this.shown[index];
    if (!trace) return;
    this.currentId = trace.id;
    this.rows.update(this.shown.length, index);
    this.rows.reveal(index);
    this.open(trace, { enter });
  }

  /** Filter and sort again: the traces, the search or the filters are others. */
  refresh() {
    this.#refreshServices();
    const anchor = this.scroller.scrollTop > 0 ? this.shown[this.rows.firstInSight] : null;
    const service = this.serviceSelect.value;
    this.shown = [];
    this.longest = 0;
    for (const trace of this.traces.byId.values()) {
      if (this.onlyErrors && !trace.errors) continue;
      if (service !== "*" && !trace.services.has(service.slice(1))) continue;
      if (this.search.isActive && !trace.matches) continue;
      this.shown.push(trace);
      this.longest = Math.max(this.longest, trace.duration);
    }
    this.shown.sort(ORDERS[this.orderSelect.value]);
    // What is being read stays in its place while others come in above it.
    const moved = anchor ? this.shown.indexOf(anchor) - this.rows.firstInSight : 0;
    this.rows.space.style.height = `${this.shown.length * TRACE_ROW_HEIGHT}px`;
    if (anchor && moved) this.scroller.scrollTop += moved * TRACE_ROW_HEIGHT;
    this.rows.update(this.shown.length, this.index);
    this.#summarise();
  }

  /** Take a key; tell whether it was one of the list's. */
  press(key) {
    const index = this.index;
    const target = movedBy(key, index, this.shown.length, this.rows.rowsInSight);
    if (target !== null) this.choose(target);
    else if (key === "Enter" && this.shown.length) this.choose(Math.max(index, 0), { enter: true });
    else return false;
    return true;
  }

  #refreshServices() {
    const names = [...this.traces.services.keys()].sort((a, b) => a.localeCompare(b));
    const key = JSON.stringify(names);
    if (key === this.serviceKey) return;
    this.serviceKey = key;
    const chosen = this.serviceSelect.value || "*";
    // A value of its own for "all": a service may have any name.
    const options = [element("option", { value: "*" }, "All services")];
    for (const name of names) options.push(element("option", { value: `=${name}` }, name || "(no service)"));
    this.serviceSelect.replaceChildren(...options);
    this.serviceSelect.value = chosen;
    if (this.serviceSelect.selectedIndex < 0) this.serviceSelect.value = "*";
  }

  #summarise() {
    const { byId: all, spanCount, errorCount } = this.traces;
    const parts =
      this.shown.length === all.size
        ? [formatCount(all.size, "trace"), formatCount(spanCount, "span")]
        : [`${this.shown.length.toLocaleString("en")} of ${formatCount(all.size, "trace")}`];
    if (this.search.isActive) {
      const matches = this.shown.reduce((sum, trace) => sum + trace.matches, 0);
      parts.push(`${formatCount(matches, "span")} found`);
    } else if (errorCount) {
      parts.push(`${errorCount.toLocaleString("en")} with errors`);
    }
    byId("summary").textContent = parts.join(" · ");
  }

  #makeRow() {
    const row = element(
      "div",
      { class: "trace-row", role: "option" },
      element("div", { class: "line" }, element("span", { class: "name" }), element("span", { class: "took" })),
      element(
        "div",
        { class: "line about" },
        element("span", { class: "dots" }),
        element("span", { class: "what" }),
        element("span", { class: "badge" }),
        element("span", { class: "when" }),
      ),
      element("div", { class: "gauge" }, element("i")),
    );
    row.parts = Object.fromEntries(
      ["name", "took", "dots", "what", "badge", "when", "gauge"].map((part) => [part, row.querySelector(`.${part}`)]),
    );
    return row;
  }

  #showRow(row, index) {
    const trace = this.shown[index],
      { parts } = row;
    const services = [...trace.services];
    const isFailed = trace.errors > 0;
    parts.name.textContent = trace.name;
    parts.took.textContent = formatDuration(trace.duration);
    parts.dots.replaceChildren(...services.slice(0, 6).map((service) => this.#dot(service)));
    // With several, their colours must do.
    parts.what.textContent =
      (services.length === 1 ? `${services[0] || "(no service)"} · ` : "") + formatCount(trace.spans.length, "span");
    parts.badge.textContent = this.search.isActive
      ? `${trace.matches.toLocaleString("en")} found`
      : isFailed
        ? formatCount(trace.errors, "error")
        : "";
    parts.badge.className = `badge${this.search.isActive ? " found" : ""}`;
    parts.when.textContent = formatClock(trace.ms);
    parts.when.title = formatTime(trace.ms);
    parts.gauge.firstChild.style.width = `${Math.max(this.longest ? (trace.duration / this.longest) * 100 : 0, 0.5)}%`;
    row.classList.toggle("failed", isFailed);
    row.setAttribute(
      "aria-label",
      `${trace.name}, ${formatDuration(trace.duration)}, ${services.join(", ")}, ${formatCount(trace.spans.length, "span")}` +
        (isFailed ? `, ${formatCount(trace.errors, "error")}` : ""),
    );
  }

  #dot(service) {
    const dot = element("i", { class: "dot" });
    dot.style.background = `var(${this.colours.of(service)})`;
    return dot;
  }
}
