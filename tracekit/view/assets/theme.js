"use strict";

/* Light and dark, and the colours of services. */

const THEMES = ["auto", "light", "dark"];
const THEME_NAMES = { auto: "as the system", light: "light", dark: "dark" };
const THEME_KEY = "tracekit.theme";
const COLOURS = 10;

class Theme {
  /** Calls `changed` when the colours are others. */
  constructor(changed) {
    this.changed = changed;
    this.button = byId("theme");
    this.palette = null;
    this.button.addEventListener("click", () => this.next());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#use(this.name));
    this.#use(remembered());
  }

  next() {
    const name = THEMES[(THEMES.indexOf(this.name) + 1) % THEMES.length];
    try {
      localStorage.setItem(THEME_KEY, name);
    } catch {
      // A page without storage forgets.
    }
    this.#use(name);
    say(`Colours: ${THEME_NAMES[name]}`);
  }

  /** A colour of page.css by the name of its property, as a canvas takes it. */
  colour(property) {
    this.palette ??= new Map();
    if (!this.palette.has(property)) {
      const probe = element("span", { hidden: true });
      probe.style.color = `var(${property})`;
      document.body.append(probe);
      this.palette.set(property, getComputedStyle(probe).color);
      probe.remove();
    }
    return this.palette.get(property);
  }

  #use(name) {
    this.name = name;
    document.documentElement.dataset.theme = name;
    this.palette = null;
    this.button.replaceChildren(icon(name));
    this.button.setAttribute("aria-label", `Colours: ${THEME_NAMES[name]}`);
    this.button.title = `Colours: ${THEME_NAMES[name]} (t)`;
    this.changed();
  }
}

function remembered() {
  try {
    const name = localStorage.getItem(THEME_KEY);
    return THEMES.includes(name) ? name : "auto";
  } catch {
    return "auto";
  }
}

/** Gives each service a colour: they are in an order in which neighbours are easy to tell apart. */
class ServiceColours {
  constructor() {
    this.slots = new Map();
  }

  /** The property of page.css with the colour of a service. */
  of(service) {
    if (!this.slots.has(service)) this.slots.set(service, this.slots.size % COLOURS);
    return `--service-${this.slots.get(service)}`;
  }
}
