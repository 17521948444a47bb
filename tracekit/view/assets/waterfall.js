"use strict";

/* The waterfall: the tree of a trace, each span with its bar. */

const SPAN_ROW_HEIGHT = 28;
const INDENT = 14;
const MAX_INDENTS = 16;
const MAX_MARKS = 12;

class Waterfall {
  /**
   * @param range the Range
   * @param search the Search
   * @param colours the ServiceColours
   * @param select (span, { enter }) is called for the span that becomes current
   */
  constructor(range, search, colours, select) {
    this.range = range;
    this.search = search;
    this.colours = colours;
    this.select = select;
    this.trace = null;
    this.current = null;
    this.shown = [];
    this.scroller = byId("waterfall");
    this.rows = new Rows(this.scroller, SPAN_ROW_HEIGHT, makeSpanRow, (row, index) => this.#showRow(row, index));
    this.grid = element("div", { class: "grid", "aria-hidden": "true" });
    // It stays in sight and is no higher than that: a million pixels are slow to paint.
    this.scroller.prepend(this.grid);
    this.scroller.addEventListener("click", (event) => this.#click(event));
    this.scroller.addEventListener("dblclick", (event) => {
      const span = this.#spanAt(event);
      if (span && !event.target.closest(".twisty")) range.fit(span);
    });
    range.listenForWheel(this.scroller, (event) => {
      const box = byId("minimap").getBoundingClientRect();
      return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    });
  }

  /** Show a trace with this span current. */
  show(trace, current) {
    if (trace !== this.trace) this.scroller.scrollTop = 0;
    this.trace = trace;
    this.current = current;
    this.refresh();
  }

  clear() {
    this.trace = this.current = null;
    this.shown = [];
    this.rows.update(0, -1);
  }

  /** List the spans again: the trace, or what is folded in it, is another. */
  refresh() {
    if (!this.trace) return;
    const { folded } = this.trace;
    this.shown = [];
    let hiddenBelow = Infinity;
    for (const span of this.trace.arranged()) {
      if (span.depth > hiddenBelow) continue;
      hiddenBelow = folded.has(span) ? span.depth : Infinity;
      this.shown.push(span);
    }
    this.render();
  }

  render() {
    if (!this.trace || this.scroller.hidden) return;
    this.#renderGrid();
    this.rows.update(this.shown.length, this.shown.indexOf(this.current));
  }

  /** Make `span` current and bring it into sight, out of whatever is folded above it. */
  go(span, options = {}) {
    let isFolded = false;
    for (let above = span.parent; above; above = above.parent) isFolded = this.trace.folded.delete(above) || isFolded;
    this.current = span;
    if (isFolded) this.refresh();
    this.range.reveal(span);
    this.rows.update(this.shown.length, this.shown.indexOf(span));
    if (!this.scroller.hidden) this.rows.reveal(this.shown.indexOf(span));
    this.select(span, options);
  }

  /** Take a key; tell whether it was one of the tree's. */
  press(key) {
    const index = this.shown.indexOf(this.current);
    const target = movedBy(key, index, this.shown.length, this.rows.rowsInSight);
    const span = this.current;
    if (target !== null) this.go(this.shown[target]);
    else if (!span) return false;
    else if (key === "Enter") this.select(span, { enter: true });
    else if (key === "ArrowRight") this.#unfoldOrEnter(span);
    else if (key === "ArrowLeft") this.#foldOrLeave(span);
    else if (key === " ") this.#toggle(span);
    else return false;
    return true;
  }

  #unfoldOrEnter(span) {
    if (this.trace.folded.has(span)) this.#toggle(span);
    else if (span.children.length) this.go(span.children[0]);
  }

  #foldOrLeave(span) {
    if (span.children.length && !this.trace.folded.has(span)) this.#toggle(span);
    else if (span.parent) this.go(span.parent);
  }

  #toggle(span) {
    if (!span.children.length) return;
    const { folded } = this.trace;
    if (!folded.delete(span)) {
      folded.add(span);
      // What is current must be in sight.
      for (let above = this.current?.parent; above; above = above.parent) if (above === span) this.go(span);
    }
    this.refresh();
  }

  #spanAt(event) {
    const row = event.target.closest(".span-row");
    return row ? this.shown[Number(row.dataset.index)] : null;
  }

  #click(event) {
    const span = this.#spanAt(event);
    if (!span) return;
    if (event.target.closest(".twisty") && span.children.length) this.#toggle(span);
    else this.go(span, { pointed: true });
  }

  #renderGrid() {
    const { times } = this.range.ticks(byId("ruler").clientWidth / TICK_WIDTH);
    while (this.grid.children.length < times.length) this.grid.append(element("i"));
    [...this.grid.children].forEach((line, index) => {
      line.hidden = index >= times.length;
      line.style.height = `${this.scroller.clientHeight}px`;
      if (!line.hidden) line.style.left = `${this.range.place(times[index]) * 100}%`;
    });
  }

  #showRow(row, index) {
    const span = this.shown[index],
      { parts } = row;
    const isFolded = this.trace.folded.has(span),
      isParent = span.children.length > 0,
      isFailed = span.status === ERROR;
    const indents = Math.min(span.depth, MAX_INDENTS);
    const colour = `var(${this.colours.of(span.service)})`;
    parts.guides.style.width = `${indents * INDENT}px`;
    parts.twisty.classList.toggle("none", !isParent);
    parts.twisty.classList.toggle("open", !isFolded);
    parts.dot.style.background = colour;
    parts.depth.textContent = span.depth > MAX_INDENTS ? `${span.depth}` : "";
    parts.name.textContent = span.name || "(no name)";
    parts.service.textContent = !span.parent || span.parent.service !== span.service ? span.service : "";
    parts.folded.textContent = isFolded ? `+${countBelow(span).toLocaleString("en")}` : "";
    row.classList.toggle("failed", isFailed);
    row.classList.toggle("unfound", this.search.isActive && !this.search.found(span));
    this.#showBar(parts, span, colour);
    row.setAttribute("aria-level", span.depth + 1);
    if (isParent) row.setAttribute("aria-expanded", !isFolded);
    else row.removeAttribute("aria-expanded");
    row.setAttribute("aria-label", `${span.name}, ${span.service}, ${durationText(span)}${isFailed ? ", error" : ""}`);
  }

  #showBar(parts, span, colour) {
    const left = this.range.place(span.start),
      right = this.range.place(span.start + span.duration);
    const isInSight = right >= 0 && left <= 1;
    parts.bar.hidden = !isInSight;
    parts.took.hidden = !isInSight;
    if (!isInSight) {
      parts.marks.replaceChildren();
      return;
    }
    const from = Math.max(left, -0.01),
      to = Math.min(right, 1.01);
    parts.bar.style.left = `${from * 100}%`;
    parts.bar.style.width = `${(to - from) * 100}%`;
    parts.bar.style.background = colour;
    parts.bar.classList.toggle("still-open", span.isOpen);
    parts.took.textContent = durationText(span);
    // The figure stands right of the bar, or left of it, or in it: where there is room.
    const place = to < 0.86 ? "after" : from > 0.14 ? "before" : "inside";
    parts.took.className = `took ${place}`;
    parts.took.style.left = place === "after" ? `${to * 100}%` : "auto";
    parts.took.style.right =
      place === "before" ? `${(1 - from) * 100}%` : place === "inside" ? `${(1 - Math.min(to, 1)) * 100}%` : "auto";
    this.#showMarks(parts.marks, span);
  }

  #showMarks(marks, span) {
    const found = [];
    for (const [ms, ns, name] of span.events.slice(0, MAX_MARKS)) {
      const place = this.range.place(this.trace.offset(ms, ns));
      if (place < 0 || place > 1) continue;
      const mark = element("i", { class: name === "exception" ? "mark exception" : "mark" });
      mark.style.left = `${place * 100}%`;
      found.push(mark);
    }
    marks.replaceChildren(...found);
  }
}

function makeSpanRow() {
  const row = element(
    "div",
    { class: "span-row", role: "treeitem" },
    element(
      "div",
      { class: "what" },
      element("span", { class: "guides" }),
      element("span", { class: "twisty" }, icon("twisty")),
      element("span", { class: "depth" }),
      element("i", { class: "dot" }),
      element("span", { class: "name" }),
      element("span", { class: "folded" }),
      element("span", { class: "service" }),
    ),
    element(
      "div",
      { class: "time" },
      element("div", { class: "bar" }),
      element("div", { class: "marks" }),
      element("span", { class: "took" }),
    ),
  );
  row.parts = Object.fromEntries(
    ["guides", "twisty", "depth", "dot", "name", "folded", "service", "bar", "marks", "took"].map((part) => [
      part,
      row.querySelector(`.${part}`),
    ]),
  );
  return row;
}

function durationText(span) {
  return span.isOpen ? "open" : formatDuration(span.duration);
}

function countBelow(span) {
  let count = 0;
  const stack = [...span.children];
  while (stack.length) {
    const below = stack.pop();
    count++;
    for (const child of below.children) stack.push(child);
  }
  return count;
}
