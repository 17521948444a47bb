"use strict";

/* The search: what a query asks of a span, asked of all spans in slices that leave the page alive. */

const SLICE_MS = 8;

/** "service:shop order.id=7 >100ms declined -health" as a list of questions, each (span) => boolean. */
function parseQuery(query) {
  const questions = [];
  for (const [, minus, word] of query.matchAll(/(-?)((?:"[^"]*"?|[^\s"])+)/g)) {
    const question = parseWord(word.replaceAll('"', "").toLowerCase(), word.startsWith('"'));
    if (question) questions.push(minus ? (span) => !question(span) : question);
  }
  return questions;
}

function parseWord(word, isQuoted) {
  if (!word) return null;
  const anywhere = (span) => spanText(span).includes(word);
  if (isQuoted) return anywhere;
  const limit = /^[<>]/.test(word) ? parseDuration(word.slice(1)) : null;
  if (limit !== null) return word[0] === ">" ? (span) => span.duration > limit : (span) => span.duration < limit;
  const [, field, text] = /^(service|name|status|kind|trace|span):(.+)$/.exec(word) ?? [];
  switch (field) {
    case "service":
      return (span) => span.service.toLowerCase().includes(text);
    case "name":
      return (span) => span.name.toLowerCase().includes(text);
    case "status":
      return (span) => STATUS_NAMES[span.status] === text;
    case "kind":
      return (span) => span.kind === text;
    case "trace":
      return (span) => span.traceId.startsWith(text);
    case "span":
      return (span) => span.id.startsWith(text);
  }
  // The text has each attribute on a line: `order.id=7` must not find `order.id=70`.
  if (/^[^=]+=./.test(word)) return (span) => spanText(span).includes(`\n${word}\n`);
  return anywhere;
}

/** All that can be found of a span, in lower case: a part a line. */
function spanText(span) {
  if (span.text === null) {
    const parts = ["", span.name, span.service, span.description, span.traceId, span.id, span.scope];
    for (const [key, value] of pairs(span.attributes)) parts.push(`${key}=${valueText(value)}`);
    for (const [, , name, attributes] of span.events) {
      parts.push(name);
      for (const [key, value] of pairs(attributes)) parts.push(`${key}=${valueText(value)}`);
    }
    for (const [traceId, spanId] of span.links) parts.push(traceId, spanId);
    parts.push("");
    span.text = parts.join("\n").toLowerCase();
  }
  return span.text;
}

class Search {
  constructor() {
    this.query = "";
    this.questions = [];
    this.number = 0;
  }

  get isActive() {
    return this.questions.length > 0;
  }

  /** Tell whether the search found `span`. */
  found(span) {
    return this.isActive && span.matched === this.number;
  }

  /** Ask `query` of all spans; calls `progress` now and then, and resolves to false if another query came meanwhile. */
  async ask(query, traces, progress) {
    this.query = query;
    this.questions = parseQuery(query);
    const number = ++this.number;
    let sliceEnd = performance.now() + SLICE_MS,
      told = performance.now();
    for (const trace of traces) {
      trace.matches = 0;
      if (!this.isActive) continue;
      for (const span of trace.spans.slice()) {
        this.#ask(span, trace);
        if (performance.now() < sliceEnd) continue;
        if (performance.now() - told > 150) {
          progress();
          told = performance.now();
        }
        await new Promise((resolve) => setTimeout(resolve));
        if (number !== this.number) return false;
        sliceEnd = performance.now() + SLICE_MS;
      }
    }
    return true;
  }

  /** Ask the present query of spans that have come later. */
  askOf(spans, traceOf) {
    if (!this.isActive) return;
    for (const span of spans) this.#ask(span, traceOf(span));
  }

  #ask(span, trace) {
    if (span.matched === this.number || !trace || !this.questions.every((question) => question(span))) return;
    span.matched = this.number;
    trace.matches++;
  }
}
