"use strict";

/* What the page knows: spans, their traces, and who is whose child, whatever a trace claims. */

const ERROR = 2;
const STATUS_NAMES = ["unset", "ok", "error"];

/** A row of rows.py as an object. */
function readRow(row, resources) {
  const [
    traceId,
    id,
    parentId,
    name,
    kind,
    ms,
    ns,
    duration,
    status,
    description,
    resource,
    scope,
    isRemote,
    attributes,
    events,
    links,
    eventCount,
    linkCount,
  ] = row;
  return {
    traceId,
    id,
    parentId,
    kind,
    ms,
    ns,
    status,
    isRemote,
    attributes,
    events,
    links,
    eventCount,
    linkCount,
    name: visible(name),
    description: visible(description),
    scope: visible(scope),
    duration: Math.max(duration ?? 0, 0),
    isOpen: duration === null,
    resource: resources.get(resource)?.attributes ?? [],
    service: resources.get(resource)?.service ?? "",
    // Filled in when the trace is arranged: nanoseconds from its start, depth, children.
    start: 0,
    depth: 0,
    parent: null,
    children: [],
    selfTime: 0,
    // Filled in by the search.
    text: null,
    matched: 0,
  };
}

/** An attribute value as text; rows.py gives [type, text] for what JSON has no type for. */
function valueText(value) {
  return Array.isArray(value) ? String(value[1]) : String(value);
}

/** The pairs of a flat list of keys and values. */
function* pairs(attributes) {
  for (let i = 0; i < attributes.length; i += 2) yield [attributes[i], attributes[i + 1]];
}

/** The value of an attribute as text, or "". */
function attribute(attributes, key) {
  for (const [name, value] of pairs(attributes)) if (name === key) return valueText(value);
  return "";
}

class Trace {
  constructor(id, number) {
    this.id = id;
    this.number = number;
    this.spans = [];
    this.errors = 0;
    this.services = new Set();
    this.folded = new Set();
    this.matches = 0;
    this.isArranged = false;
    this.first = null;
    this.ms = Infinity;
    this.ns = 0;
    this.duration = 0;
  }

  add(span) {
    this.spans.push(span);
    this.errors += span.status === ERROR ? 1 : 0;
    this.services.add(span.service);
    const isEarlier = span.ms < this.ms || (span.ms === this.ms && span.ns < this.ns);
    if (isEarlier) {
      // The duration counts from the earliest start.
      if (this.first) this.duration += (this.ms - span.ms) * 1e6 + (this.ns - span.ns);
      this.ms = span.ms;
      this.ns = span.ns;
    }
    if (!this.first || isBetterRoot(span, this.first)) this.first = span;
    this.duration = Math.max(this.duration, this.offset(span.ms, span.ns) + span.duration);
    this.isArranged = false;
  }

  get name() {
    return this.first.name || "(no name)";
  }

  /** Nanoseconds from the start of the trace. */
  offset(ms, ns) {
    return (ms - this.ms) * 1e6 + (ns - this.ns);
  }

  /** All spans, parents before their children, siblings by start; each exactly once. */
  arranged() {
    if (this.isArranged) return this.spans;
    const spans = this.spans;
    const known = new Map();
    for (const span of spans) {
      span.start = this.offset(span.ms, span.ns);
      span.parent = null;
      span.children = [];
    }
    spans.sort((a, b) => a.start - b.start || b.duration - a.duration);
    for (const span of spans) if (!known.has(span.id)) known.set(span.id, span);
    for (const span of spans) {
      const parent = span.parentId ? known.get(span.parentId) : undefined;
      if (parent && parent !== span) {
        span.parent = parent;
        parent.children.push(span);
      }
    }
    this.spans = this.#inOrder(spans);
    for (const span of this.spans) span.selfTime = selfTime(span);
    this.isArranged = true;
    return this.spans;
  }

  #inOrder(spans) {
    const order = [],
      seen = new Set();
    const visit = (root) => {
      // A stack of its own: spans may nest deeper than calls may.
      const stack = [root];
      while (stack.length) {
        const span = stack.pop();
        seen.add(span);
        span.depth = span.parent ? span.parent.depth + 1 : 0;
        order.push(span);
        for (let i = span.children.length - 1; i >= 0; i--) stack.push(span.children[i]);
      }
    };
    for (const span of spans) if (!span.parent) visit(span);
    for (const span of spans) {
      if (seen.has(span)) continue;
      // What no root leads to hangs on a circle of parents: cut it above the first that comes twice.
      const passed = new Set();
      let top = span;
      while (!passed.has(top)) {
        passed.add(top);
        top = top.parent;
      }
      top.parent.children.splice(top.parent.children.indexOf(top), 1);
      top.parent = null;
      visit(top);
    }
    return order;
  }
}

function isBetterRoot(span, other) {
  if (!span.parentId !== !other.parentId) return !span.parentId;
  return span.ms < other.ms || (span.ms === other.ms && span.ns < other.ns);
}

/** What a span took without its children: they may overlap, and outlive it. */
function selfTime(span) {
  let covered = 0,
    until = span.start;
  const end = span.start + span.duration;
  for (const child of span.children) {
    const from = Math.max(child.start, until),
      to = Math.min(child.start + child.duration, end);
    if (to > from) {
      covered += to - from;
      until = to;
    }
  }
  return span.duration - covered;
}

class Traces {
  constructor(maxSpans = Infinity) {
    this.maxSpans = maxSpans;
    this.clear();
  }

  clear() {
    this.resources = new Map();
    this.byId = new Map();
    this.services = new Map();
    this.spanCount = 0;
    this.added = 0;
  }

  /** Add resources as [number, row] and span rows; return the new spans. */
  add(resources, rows) {
    for (const [number, [service, attributes]] of resources)
      this.resources.set(number, { service: visible(service), attributes });
    const added = [];
    for (const row of rows) {
      const span = readRow(row, this.resources);
      let trace = this.byId.get(span.traceId);
      if (!trace) this.byId.set(span.traceId, (trace = new Trace(span.traceId, this.added++)));
      trace.add(span);
      this.services.set(span.service, (this.services.get(span.service) ?? 0) + 1);
      added.push(span);
    }
    this.spanCount += added.length;
    this.#forgetTheOldest();
    return added;
  }

  #forgetTheOldest() {
    for (const [id, trace] of this.byId) {
      if (this.spanCount <= this.maxSpans || this.byId.size === 1) return;
      this.spanCount -= trace.spans.length;
      this.byId.delete(id);
    }
  }

  get errorCount() {
    let count = 0;
    for (const trace of this.byId.values()) if (trace.errors) count++;
    return count;
  }
}
