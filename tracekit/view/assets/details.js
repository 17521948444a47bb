"use strict";

/* The details of a span. Links lead to spans by their ids; no text of a trace is ever an address. */

const LONG_TEXT = 1200;
const LONG_KEY = 200;
const TOLD_BY_EXCEPTION = new Set(["exception.type", "exception.message", "exception.stacktrace", "exception.escaped"]);

class Details {
  /**
   * @param traces the Traces
   * @param colours the ServiceColours
   * @param actions { close(), go(traceId, spanId), search(text) }
   */
  constructor(traces, colours, actions) {
    this.traces = traces;
    this.colours = colours;
    this.actions = actions;
    this.pane = byId("details");
    this.span = null;
    this.isResourceOpen = false;
  }

  /** Show a span of a trace, or nothing. */
  show(span, trace) {
    if (span === this.span && span && this.spanCount === trace.spans.length) return;
    this.span = span;
    this.spanCount = trace?.spans.length;
    this.pane.hidden = !span;
    this.pane.replaceChildren(...(span ? this.#parts(span, trace) : []));
    this.pane.scrollTop = 0;
  }

  focus() {
    this.pane.focus();
  }

  #parts(span, trace) {
    return [
      this.#head(span),
      this.#figures(span, trace),
      this.#error(span),
      this.#section(
        "Attributes",
        span.attributes.length / 2,
        span.attributes.length ? this.#table(span.attributes) : null,
      ),
      this.#section("Events", span.eventCount, span.events.length ? this.#events(span, trace) : null),
      this.#section("Links", span.linkCount, span.links.length ? this.#links(span) : null),
      this.#ids(span),
      this.#resource(span),
    ].filter(Boolean);
  }

  #head(span) {
    const dot = element("i", { class: "dot" });
    dot.style.background = `var(${this.colours.of(span.service)})`;
    const status = STATUS_NAMES[span.status];
    return element(
      "header",
      { class: "details-head" },
      button(
        { class: "back quiet square", "aria-label": "Back to the trace" },
        () => this.actions.close(),
        icon("back"),
      ),
      element(
        "div",
        { class: "details-title" },
        element("h3", {}, span.name || "(no name)"),
        element(
          "p",
          { class: "facts" },
          dot,
          element("span", {}, span.service || "(no service)"),
          element("span", { class: "tag" }, span.kind),
          span.status ? element("span", { class: `tag ${status}` }, status) : null,
        ),
      ),
      button(
        { class: "close quiet square", "aria-label": "Close the details", title: "Close (Esc)" },
        () => this.actions.close(),
        icon("close"),
      ),
    );
  }

  #figures(span, trace) {
    const share = trace.duration ? span.duration / trace.duration : 0;
    const figure = (label, value, title) =>
      element("div", { title }, element("dt", {}, label), element("dd", {}, value));
    return element(
      "dl",
      { class: "figures" },
      figure("Duration", durationText(span), `${(share * 100).toFixed(1)}% of the trace`),
      figure("Self", formatDuration(span.selfTime), "Without its children"),
      figure("Start", `+${formatDuration(span.start)}`, formatTime(span.ms)),
      figure("Children", span.children.length.toLocaleString("en")),
    );
  }

  #error(span) {
    if (span.status !== ERROR && !span.description) return null;
    const stack = span.events.find(
      ([, , name, attributes]) => name === "exception" && attribute(attributes, "exception.stacktrace"),
    );
    const told = failureText(span);
    const cause = innermostError(span),
      reason = failureText(cause);
    return element(
      "section",
      { class: "error-box" },
      element("p", {}, icon("error"), element("span", { class: "text" }, shortened(told || "Failed"))),
      cause === span
        ? null
        : element(
            "p",
            { class: "cause" },
            "First failed in ",
            button({ class: "go" }, () => this.actions.go(cause.traceId, cause.id), cause.name || "(no name)"),
            reason && reason !== told ? `: ${shortened(reason)}` : null,
          ),
      stack ? stackTrace(attribute(stack[3], "exception.stacktrace")) : null,
    );
  }

  #section(title, count, content) {
    if (!content) return null;
    return element(
      "section",
      {},
      element("h4", {}, title, element("span", { class: "count" }, count.toLocaleString("en"))),
      content,
    );
  }

  #table(attributes) {
    const rows = [...pairs(attributes)].map(([key, value]) => {
      const text = visible(valueText(value));
      const isShort = text.length > 0 && text.length <= 80 && !/["\\\n]/.test(text);
      return element(
        "div",
        { class: "pair" },
        element("dt", {}, ...breakable(visible(key))),
        element(
          "dd",
          { class: typeof value === "string" ? "mono" : "mono plain" },
          longText(text),
          isShort
            ? button(
                { class: "find quiet square", "aria-label": `Search for this ${key}`, title: "Search for it" },
                () => this.actions.search(/\s/.test(key + text) ? `"${key}=${text}"` : `${key}=${text}`),
                icon("search"),
              )
            : null,
        ),
      );
    });
    return element("dl", { class: "pairs" }, ...rows);
  }

  #events(span, trace) {
    const items = span.events.map(([ms, ns, name, attributes]) => {
      const isException = name === "exception";
      const rest = [...pairs(attributes)].filter(([key]) => !isException || !TOLD_BY_EXCEPTION.has(key)).flat();
      const stack = isException ? attribute(attributes, "exception.stacktrace") : "";
      return element(
        "li",
        { class: isException ? "exception" : null },
        element(
          "div",
          { class: "line" },
          element("span", { class: "name" }, isException ? shortened(exceptionText(attributes)) : visible(name)),
          element("span", { class: "when" }, `+${formatDuration(Math.max(trace.offset(ms, ns) - span.start, 0))}`),
        ),
        stack && span.status !== ERROR ? stackTrace(stack) : null,
        rest.length ? this.#table(rest) : null,
      );
    });
    if (span.eventCount > items.length)
      items.push(element("li", {}, `${formatCount(span.eventCount - items.length, "more event")} not kept`));
    return element("ol", { class: "events" }, ...items);
  }

  #links(span) {
    const items = span.links.map(([traceId, spanId, attributes]) => {
      const target = this.traces.byId.get(traceId)?.spans.find((other) => other.id === spanId);
      return element(
        "li",
        {},
        target
          ? button(
              { class: "go" },
              () => this.actions.go(traceId, spanId),
              `${target.name || "(no name)"} `,
              element(
                "span",
                { class: "muted" },
                target.traceId === span.traceId ? "in this trace" : "in another trace",
              ),
            )
          : element("span", { class: "muted" }, "A span that is not here"),
        element("div", { class: "ids" }, copyButton(traceId), copyButton(spanId)),
        attributes.length ? this.#table(attributes) : null,
      );
    });
    return element("ul", { class: "links" }, ...items);
  }

  #ids(span) {
    const line = (label, content) =>
      element("div", { class: "pair" }, element("dt", {}, label), element("dd", {}, content));
    const { parent } = span;
    return element(
      "section",
      {},
      element("h4", {}, "Ids"),
      element(
        "dl",
        { class: "pairs names" },
        line("Trace", copyButton(span.traceId)),
        line("Span", copyButton(span.id)),
        span.parentId
          ? line(
              span.isRemote ? "Remote parent" : "Parent",
              parent
                ? button({ class: "go" }, () => this.actions.go(span.traceId, parent.id), parent.name || "(no name)")
                : copyButton(span.parentId),
            )
          : null,
        line("In logs", copyButton(`trace_id=${span.traceId} span_id=${span.id}`, `trace_id=… span_id=${span.id}`)),
        span.scope ? line("Scope", element("span", { class: "mono" }, span.scope)) : null,
      ),
    );
  }

  #resource(span) {
    if (!span.resource.length) return null;
    const fold = element(
      "details",
      { class: "resource" },
      element(
        "summary",
        {},
        "Resource",
        element("span", { class: "count" }, (span.resource.length / 2).toLocaleString("en")),
      ),
      this.#table(span.resource),
    );
    fold.open = this.isResourceOpen;
    fold.addEventListener("toggle", () => {
      this.isResourceOpen = fold.open;
    });
    return fold;
  }
}

/** What is known of the failure of a span: some instrumentations only record an exception, or its type. */
function failureText(span) {
  if (span.description) return span.description;
  const raised = span.events.find(([, , name]) => name === "exception");
  return raised ? exceptionText(raised[3]) : visible(attribute(span.attributes, "error.type"));
}

/** The failed span below a failed one where it all began. */
function innermostError(span) {
  for (;;) {
    const below = span.children.find((child) => child.status === ERROR);
    if (!below) return span;
    span = below;
  }
}

/** "ValueError: no card" of an exception event. */
function exceptionText(attributes) {
  const type = attribute(attributes, "exception.type"),
    message = attribute(attributes, "exception.message");
  const name = type.slice(type.lastIndexOf(".") + 1);
  return visible(name && message ? `${name}: ${message}` : name || message || "exception");
}

function shortened(text) {
  return text.length > LONG_TEXT ? `${text.slice(0, LONG_TEXT)}…` : text;
}

/** A dotted key that may go on in a next line after each of its parts. */
function breakable(key) {
  if (key.length > LONG_KEY) return [key];
  return key.split(/(?<=[._/])(?=.)/).flatMap((part, index) => (index ? [element("wbr"), part] : [part]));
}

/** A text, and a button for the rest of a long one. */
function longText(text) {
  const shown = element("span", { class: "text" }, shortened(text) || "(empty)");
  if (text.length <= LONG_TEXT) return shown;
  const more = button(
    { class: "more" },
    () => {
      shown.textContent = text;
      more.remove();
    },
    `All ${text.length.toLocaleString("en")} characters`,
  );
  return element("span", {}, shown, more);
}

function stackTrace(text) {
  return element(
    "details",
    { class: "stack" },
    element("summary", {}, "Stack trace"),
    element("pre", { tabindex: "0" }, visible(text)),
  );
}
