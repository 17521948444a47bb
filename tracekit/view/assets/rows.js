"use strict";

/* A list of any length with a few elements: those of the rows in sight. */

const SPARE_ROWS = 6;

class Rows {
  /**
   * @param scroller the element that scrolls; it takes the keyboard's focus for all rows
   * @param rowHeight in pixels, as page.css has it
   * @param make makes the element of a row
   * @param show (element, index) fills it
   */
  constructor(scroller, rowHeight, make, show) {
    this.scroller = scroller;
    this.rowHeight = rowHeight;
    this.make = make;
    this.show = show;
    this.count = 0;
    this.current = -1;
    this.shown = new Map();
    this.spare = [];
    this.space = element("div", { class: "space", role: "presentation" });
    scroller.append(this.space);
    this.render = this.render.bind(this);
    this.plan = oncePerFrame(this.render);
    scroller.addEventListener("scroll", this.plan, { passive: true });
    new ResizeObserver(this.plan).observe(scroller);
  }

  /** Say how many rows there are and which is the current one (-1: none), and draw. */
  update(count, current) {
    this.count = count;
    this.current = current;
    this.space.style.height = `${count * this.rowHeight}px`;
    this.render();
  }

  /** Scroll as little as it takes to see a row. */
  reveal(index) {
    const top = index * this.rowHeight,
      bottom = top + this.rowHeight;
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.scroller.scrollTop = bottom - clientHeight;
    this.render();
  }

  get rowsInSight() {
    return Math.max(1, Math.floor(this.scroller.clientHeight / this.rowHeight));
  }

  get firstInSight() {
    return Math.floor(this.scroller.scrollTop / this.rowHeight);
  }

  render() {
    const first = Math.max(0, this.firstInSight - SPARE_ROWS);
    const last = Math.min(this.count, this.firstInSight + this.rowsInSight + 1 + SPARE_ROWS);
    for (const [index, row] of this.shown) {
      if (index >= first && index < last) continue;
      this.shown.delete(index);
      this.spare.push(row);
    }
    for (let index = first; index < last; index++) {
      let row = this.shown.get(index);
      if (!row) {
        row = this.spare.pop() ?? this.make();
        if (!row.isConnected) this.space.append(row);
        row.hidden = false;
        row.dataset.index = index;
        row.id = `${this.scroller.id}-${index}`;
        row.style.transform = `translateY(${index * this.rowHeight}px)`;
        this.shown.set(index, row);
      }
      row.setAttribute("aria-posinset", index + 1);
      row.setAttribute("aria-setsize", this.count);
      row.setAttribute("aria-selected", index === this.current);
      this.show(row, index);
    }
    for (const row of this.spare) {
      row.hidden = true;
      row.removeAttribute("id");
    }
    if (this.shown.has(this.current))
      this.scroller.setAttribute("aria-activedescendant", this.shown.get(this.current).id);
    else this.scroller.removeAttribute("aria-activedescendant");
  }
}

/** Where a key moves in a list of `count` rows, or null if it does not move. */
function movedBy(key, index, count, page) {
  const moves = {
    ArrowDown: index + 1,
    ArrowUp: index - 1,
    PageDown: index + page,
    PageUp: index - page,
    Home: 0,
    End: count - 1,
  };
  if (!Object.hasOwn(moves, key) || !count) return null;
  return Math.min(Math.max(moves[key], 0), count - 1);
}
