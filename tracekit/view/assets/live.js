"use strict";

/* The live page: asks the server it comes from for what is new. */

const POLL_MS = 1000;
const SLOW_POLL_MS = 5000;

class Live {
  /**
   * @param settings { endpoint, maxSpans } as server.py gives them
   * @param actions { add(resources, rows), clear() }
   */
  constructor(settings, actions) {
    this.settings = settings;
    this.actions = actions;
    this.next = 0;
    this.epoch = "";
    this.isConnected = true;
    this.timer = 0;
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.poll();
    });
    const clear = byId("clear");
    clear.hidden = false;
    clear.title = "Forget all traces";
    clear.addEventListener("click", () => this.clear());
    this.#showState();
    this.poll();
  }

  /** Ask for what is new until there is no more, and again a second later. */
  async poll() {
    if (this.isPolling) return;
    this.isPolling = true;
    clearTimeout(this.timer);
    try {
      while (await this.#ask());
      this.#connected(true);
    } catch {
      this.#connected(false);
    }
    this.isPolling = false;
    // A page nobody looks at waits until somebody does.
    if (!document.hidden) this.timer = setTimeout(() => this.poll(), this.isConnected ? POLL_MS : SLOW_POLL_MS);
  }

  async clear() {
    try {
      await fetch("api/spans", { method: "DELETE" });
    } catch {
      // The poll says that the server has gone.
    }
    this.poll();
  }

  async #ask() {
    const response = await fetch(`api/spans?after=${this.next}&epoch=${encodeURIComponent(this.epoch)}`, {
      cache: "no-store",
    });
    if (!response.ok) throw new Error(String(response.status));
    const { epoch, next, resources, spans, more } = await response.json();
    if (epoch !== this.epoch) {
      // Another server, or somebody has cleared it.
      this.actions.clear();
      this.epoch = epoch;
    }
    this.next = next;
    if (spans.length) this.actions.add(resources, spans);
    return more;
  }

  #connected(isConnected) {
    if (isConnected === this.isConnected) return;
    this.isConnected = isConnected;
    this.#showState();
  }

  #showState() {
    byId("source").replaceChildren(
      element("i", { class: this.isConnected ? "pulse" : "pulse lost" }),
      this.isConnected ? `Live · ${this.settings.endpoint}` : "The server is gone",
    );
  }
}

/** What to do while nothing has come: shown by the empty live page. */
function waitingText(settings) {
  return [
    element("h2", {}, "Waiting for spans"),
    element("p", {}, "Point any OpenTelemetry SDK here:"),
    copyButton(`export OTEL_EXPORTER_OTLP_ENDPOINT=${settings.endpoint} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`),
    element("p", {}, "or, with tracekit:"),
    copyButton(`tracekit.configure(endpoint="${settings.endpoint}", protocol="http/protobuf")`),
  ];
}
