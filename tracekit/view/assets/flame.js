"use strict";

/* The flame chart: callers above, what they call below, all to scale. */

const FLAME_ROW_HEIGHT = 22;
const MAX_FLAME_ROWS = 2000;
const LETTER_WIDTH = 6.3;

class Flame {
  /** The arguments are those of Waterfall, and the Theme. */
  constructor(range, search, colours, theme, select) {
    this.range = range;
    this.search = search;
    this.colours = colours;
    this.theme = theme;
    this.select = select;
    this.trace = null;
    this.current = null;
    this.scroller = byId("flame");
    this.canvas = byId("flame-canvas");
    this.space = element("div", { class: "space" });
    this.scroller.append(this.space);
    this.tip = byId("tip");
    this.plan = oncePerFrame(() => this.render());
    this.scroller.addEventListener("scroll", this.plan, { passive: true });
    new ResizeObserver(this.plan).observe(this.scroller);
    this.canvas.addEventListener("click", (event) => {
      const span = this.#spanAt(event);
      if (span) this.go(span, { pointed: true });
    });
    this.canvas.addEventListener("dblclick", (event) => {
      const span = this.#spanAt(event);
      if (span) range.fit(span);
    });
    this.canvas.addEventListener("pointermove", (event) => this.#showTip(event));
    this.canvas.addEventListener("pointerleave", () => {
      this.tip.hidden = true;
    });
    range.listenForWheel(this.scroller, (event) => {
      const box = this.scroller.getBoundingClientRect();
      return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    });
  }

  show(trace, current) {
    if (trace !== this.trace) this.scroller.scrollTop = 0;
    this.trace = trace;
    this.current = current;
    this.lanes = null;
    this.plan();
  }

  clear() {
    this.trace = this.current = this.lanes = null;
  }

  /** Make `span` current and bring it into sight. */
  go(span, options = {}) {
    this.current = span;
    this.range.reveal(span);
    this.#arrange();
    const top = span.lane * FLAME_ROW_HEIGHT;
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (top + FLAME_ROW_HEIGHT > scrollTop + clientHeight)
      this.scroller.scrollTop = top + FLAME_ROW_HEIGHT - clientHeight;
    this.plan();
    this.select(span, options);
  }

  /** Take a key: down to the first child, up to the parent, left and right to the siblings. */
  press(key) {
    const span = this.current;
    if (!span) return false;
    if (key === "Enter") {
      this.select(span, { enter: true });
      return true;
    }
    if (!key.startsWith("Arrow")) return false;
    const siblings = span.parent ? span.parent.children : this.trace.arranged().filter((other) => !other.parent);
    const index = siblings.indexOf(span);
    const target = {
      ArrowDown: span.children[0],
      ArrowUp: span.parent,
      ArrowLeft: siblings[index - 1],
      ArrowRight: siblings[index + 1],
    }[key];
    if (target) this.go(target);
    return true;
  }

  /** Give each span a lane below its parent's in which it overlaps nothing. */
  #arrange() {
    if (this.lanes) return;
    const ends = [];
    this.lanes = [];
    const spans = this.trace
      .arranged()
      .slice()
      .sort((a, b) => a.start - b.start || a.depth - b.depth);
    for (const span of spans) span.lane = -1;
    for (const span of spans) {
      // A child that claims to begin before its parent goes below where the parent will be at best.
      let lane = Math.min(span.parent ? Math.max(span.parent.lane + 1, 1) : 0, MAX_FLAME_ROWS - 1);
      while (lane < MAX_FLAME_ROWS - 1 && (ends[lane] ?? -Infinity) > span.start) lane++;
      ends[lane] = Math.max(ends[lane] ?? -Infinity, span.start + span.duration);
      span.lane = lane;
      (this.lanes[lane] ??= []).push(span);
    }
    for (let lane = 0; lane < this.lanes.length; lane++) this.lanes[lane] ??= [];
  }

  render() {
    if (!this.trace || this.scroller.hidden) return;
    this.#arrange();
    const width = this.scroller.clientWidth,
      height = this.scroller.clientHeight;
    this.space.style.height = `${Math.max(this.lanes.length * FLAME_ROW_HEIGHT - height, 0)}px`;
    const context = prepareCanvas(this.canvas, width, height);
    if (!context) return;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const colour = (name) => this.theme.colour(name);
    context.font = `11.5px ${getComputedStyle(document.body).fontFamily}`;
    context.textBaseline = "middle";
    this.#drawGrid(context, width, height);
    const top = this.scroller.scrollTop;
    const first = Math.floor(top / FLAME_ROW_HEIGHT);
    const last = Math.min(this.lanes.length, Math.ceil((top + height) / FLAME_ROW_HEIGHT));
    for (let lane = first; lane < last; lane++)
      this.#drawLane(context, this.lanes[lane], lane * FLAME_ROW_HEIGHT - top, width, colour);
  }

  #drawGrid(context, width, height) {
    context.fillStyle = this.theme.colour("--line");
    for (const ns of this.range.ticks(width / TICK_WIDTH).times)
      context.fillRect(Math.round(this.range.place(ns) * width), 0, 1, height);
  }

  #drawLane(context, spans, y, width, colour) {
    let drawnTo = -1;
    for (let index = this.#firstIn(spans); index < spans.length; index++) {
      const span = spans[index];
      if (span.start > this.range.to) break;
      const x = Math.max(this.range.place(span.start) * width, -2);
      const end = Math.min(this.range.place(span.start + span.duration) * width, width + 2);
      // A thousand spans in one pixel are one.
      if (end < drawnTo + 0.5 && span !== this.current) continue;
      const wide = Math.max(end - x, 1);
      drawnTo = x + wide;
      context.globalAlpha = this.search.isActive && !this.search.found(span) ? 0.25 : 1;
      context.fillStyle = colour(this.colours.of(span.service));
      const gap = wide > 3 ? 1 : 0;
      context.fillRect(x, y + 1, Math.max(wide - gap, 0.75), FLAME_ROW_HEIGHT - 2);
      if (span.status === ERROR) {
        context.fillStyle = colour("--error");
        context.fillRect(x, y + FLAME_ROW_HEIGHT - 4, Math.max(wide - gap, 0.75), 3);
      }
      if (span === this.current) {
        context.strokeStyle = colour("--text");
        context.lineWidth = 2;
        context.strokeRect(x + 1, y + 2, Math.max(wide - 3, 1), FLAME_ROW_HEIGHT - 4);
      }
      this.#write(context, span, x, wide, y, colour);
    }
    context.globalAlpha = 1;
  }

  #write(context, span, x, wide, y, colour) {
    const from = Math.max(x, 0) + 6;
    const room = Math.floor((x + wide - from - 4) / LETTER_WIDTH);
    if (room < 3) return;
    context.fillStyle = colour("--on-service");
    const text = `${span.name}  ${durationText(span)}`;
    const label =
      text.length <= room ? text : span.name.length <= room ? span.name : `${span.name.slice(0, room - 1)}…`;
    context.fillText(label, from, y + FLAME_ROW_HEIGHT / 2 + 0.5);
  }

  /** The index of the first span of a lane that may be in sight; within a lane spans do not overlap. */
  #firstIn(spans) {
    let low = 0,
      high = spans.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (spans[middle].start < this.range.from) low = middle + 1;
      else high = middle;
    }
    return Math.max(low - 1, 0);
  }

  #spanAt(event) {
    if (!this.lanes) return null;
    const box = this.canvas.getBoundingClientRect();
    const lane = this.lanes[Math.floor((event.clientY - box.top + this.scroller.scrollTop) / FLAME_ROW_HEIGHT)];
    if (!lane) return null;
    const perPixel = this.range.length / box.width;
    const ns = this.range.from + (event.clientX - box.left) * perPixel;
    let found = null;
    for (let index = this.#firstIn(lane); index < lane.length && lane[index].start <= ns + perPixel; index++) {
      // Thin ones may be missed by a pixel.
      if (lane[index].start + lane[index].duration >= ns - 2 * perPixel) found = lane[index];
    }
    return found;
  }

  #showTip(event) {
    const span = this.#spanAt(event);
    this.tip.hidden = !span;
    if (!span) return;
    this.tip.replaceChildren(
      element("b", {}, span.name || "(no name)"),
      element(
        "span",
        {},
        [span.service, durationText(span), `self ${formatDuration(span.selfTime)}`].filter(Boolean).join(" · "),
      ),
      ...(span.description ? [element("span", { class: "error" }, span.description.slice(0, 200))] : []),
    );
    const box = this.tip.getBoundingClientRect();
    this.tip.style.left = `${Math.max(Math.min(event.clientX + 14, innerWidth - box.width - 8), 8)}px`;
    this.tip.style.top = `${Math.max(Math.min(event.clientY + 16, innerHeight - box.height - 8), 8)}px`;
  }
}
