"use strict";

/* The stretch of time in sight: its overview, its ruler, and how one zooms and moves. */

const ZOOM_STEP = 1.6;
const SMALLEST_NS = 20;
const OVERVIEW_HEIGHT = 40;
const TICK_WIDTH = 84;

class Range {
  /**
   * @param theme the Theme
   * @param colours the ServiceColours
   * @param changed is called when another stretch is in sight
   */
  constructor(theme, colours, changed) {
    this.theme = theme;
    this.colours = colours;
    this.changed = changed;
    this.trace = null;
    this.from = 0;
    this.to = 1;
    this.canvas = byId("minimap");
    this.ruler = byId("ruler");
    this.picture = document.createElement("canvas");
    this.pictureKey = "";
    this.plan = oncePerFrame(() => this.render());
    byId("zoom-in").addEventListener("click", () => this.zoom(1 / ZOOM_STEP));
    byId("zoom-out").addEventListener("click", () => this.zoom(ZOOM_STEP));
    byId("zoom-all").addEventListener("click", () => this.all());
    new ResizeObserver(this.plan).observe(this.canvas);
    this.#listenForDrags();
  }

  get total() {
    return Math.max(this.trace?.duration ?? 0, SMALLEST_NS);
  }

  get length() {
    return this.to - this.from;
  }

  get isWhole() {
    return this.from <= 0 && this.to >= this.total;
  }

  /** Show a trace: all of it, unless it is the one already shown and zoomed. */
  show(trace, { keep = false } = {}) {
    const isZoomed = keep && this.trace === trace && !this.wasWhole;
    this.trace = trace;
    if (isZoomed) this.set(this.from, this.to);
    else this.all();
  }

  /** Where a time stands in the stretch: 0 at its left edge, 1 at its right. */
  place(ns) {
    return (ns - this.from) / this.length;
  }

  all() {
    this.set(0, this.total);
  }

  /** Make the stretch `factor` times as long, `at` (0 to 1) staying where it is. */
  zoom(factor, at = 0.5) {
    const length = Math.min(Math.max(this.length * factor, this.smallest), this.total);
    const fixed = this.from + this.length * at;
    this.set(fixed - length * at, fixed + length * (1 - at));
  }

  /** Move by a part of the stretch. */
  move(part) {
    this.set(this.from + this.length * part, this.to + this.length * part);
  }

  /** Show a span with some air around it. */
  fit(span) {
    const air = Math.max(span.duration * 0.08, SMALLEST_NS);
    this.set(span.start - air, span.start + span.duration + air);
  }

  /** Move, if that is needed, until some of the span is in sight. */
  reveal(span) {
    const end = span.start + span.duration;
    if (end >= this.from && span.start <= this.to) return;
    const from = span.start - this.length * 0.1;
    this.set(from, from + this.length);
  }

  set(from, to) {
    const length = Math.min(Math.max(to - from, this.smallest), this.total);
    this.from = Math.min(Math.max(from, 0), this.total - length);
    this.to = this.from + length;
    this.wasWhole = this.isWhole;
    this.plan();
    this.changed();
  }

  get smallest() {
    return Math.min(Math.max(SMALLEST_NS, this.total * 1e-9), this.total);
  }

  /** Zoom and move by the wheel over `area`; `at` gives where (0 to 1) a pixel of it stands in the stretch. */
  listenForWheel(area, at) {
    area.addEventListener(
      "wheel",
      (event) => {
        const isZoom = event.ctrlKey || event.metaKey;
        const across = event.deltaX || (event.shiftKey ? event.deltaY : 0);
        if (isZoom) this.zoom(Math.exp(Math.max(-60, Math.min(event.deltaY, 60)) * 0.01), at(event));
        else if (across && !this.isWhole) this.move(Math.max(-0.5, Math.min(across / 600, 0.5)));
        else return;
        event.preventDefault();
      },
      { passive: false },
    );
  }

  render() {
    if (!this.trace) return;
    byId("range").textContent = this.isWhole
      ? formatDuration(this.trace.duration)
      : `${formatDuration(this.length)} of ${formatDuration(this.trace.duration)}`;
    this.#renderRuler();
    this.#renderOverview();
  }

  /** Times of round figures in the stretch, about `count` of them. */
  ticks(count) {
    const raw = this.length / Math.max(count, 1);
    const magnitude = 10 ** Math.floor(Math.log10(raw));
    const step = magnitude * ([1, 2, 5, 10].find((round) => round * magnitude >= raw) ?? 10);
    const found = [];
    for (let number = Math.ceil(this.from / step); number * step <= this.to && found.length < 50; number++)
      found.push(number * step);
    return { step, times: found };
  }

  #renderRuler() {
    const { times } = this.ticks(this.ruler.clientWidth / TICK_WIDTH);
    const marks = times.map((ns) => {
      const mark = element("span", {}, ns === 0 ? "0" : formatDuration(ns));
      mark.style.left = `${this.place(ns) * 100}%`;
      // One that would be cut off stands left of its line.
      if ((1 - this.place(ns)) * this.ruler.clientWidth < TICK_WIDTH * 0.6) mark.className = "last";
      return mark;
    });
    this.ruler.replaceChildren(...marks);
  }

  #renderOverview() {
    const width = this.canvas.clientWidth,
      height = OVERVIEW_HEIGHT;
    const context = prepareCanvas(this.canvas, width, height);
    if (!context) return;
    this.#draw(width, height);
    context.drawImage(this.picture, 0, 0, width, height);
    if (this.isWhole && !this.drag) return;
    const [from, to] = this.drag ?? [this.from / this.total, this.to / this.total];
    context.fillStyle = this.theme.colour("--veil");
    context.fillRect(0, 0, from * width, height);
    context.fillRect(to * width, 0, width - to * width, height);
    context.fillStyle = this.theme.colour("--accent");
    context.fillRect(Math.max(from * width - 1, 0), 0, 1.5, height);
    context.fillRect(Math.min(to * width, width - 1.5), 0, 1.5, height);
  }

  /** Draw all spans once for this trace, size and theme: later only the picture is copied. */
  #draw(width, height) {
    const spans = this.trace.arranged();
    const key = [
      this.trace.id,
      this.trace.number,
      spans.length,
      width,
      devicePixelRatio,
      this.theme.colour("--accent"),
    ].join();
    if (key === this.pictureKey) return;
    this.pictureKey = key;
    const context = prepareCanvas(this.picture, width, height);
    const step = Math.min((height - 4) / spans.length, 5);
    spans.forEach((span, index) => {
      context.fillStyle = this.theme.colour(span.status === ERROR ? "--error" : this.colours.of(span.service));
      const x = (span.start / this.total) * width;
      const wide = Math.max((span.duration / this.total) * width, 1);
      context.fillRect(Math.min(x, width - 1), 2 + index * step, wide, Math.max(step * 0.7, 0.7));
    });
  }

  #listenForDrags() {
    let began = null;
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      began = at(event);
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (began === null) return;
      const now = at(event);
      this.drag = [Math.min(began, now), Math.max(began, now)];
      this.plan();
    });
    this.canvas.addEventListener("pointerup", () => {
      const drag = this.drag;
      const isDrag = drag && drag[1] - drag[0] > 0.004;
      if (isDrag) this.set(drag[0] * this.total, drag[1] * this.total);
      // A click moves the stretch there.
      else if (began !== null) this.set(began * this.total - this.length / 2, began * this.total + this.length / 2);
      this.drag = began = null;
      this.plan();
    });
    this.canvas.addEventListener("pointercancel", () => {
      this.drag = began = null;
      this.plan();
    });
    this.canvas.addEventListener("dblclick", () => this.all());
  }
}
