"use strict";

/* Elements. All text of traces comes into the page through here, and as text: nothing in this page parses HTML. */

/** Return the element with this id. */
function byId(id) {
  return document.getElementById(id);
}

/** Make an element; strings among the children become text. Attribute names are ours, never a trace's. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Make a button of the page's own text that runs `action`. */
function button(attributes, action, ...children) {
  const made = element("button", { type: "button", ...attributes }, ...children);
  made.addEventListener("click", action);
  return made;
}

/** Make one of the icons of page.html. */
function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Say `text` to a screen reader. */
function say(text) {
  byId("said").textContent = text;
}

/** Return a function that runs `action` once before the next frame, however often it is called. */
function oncePerFrame(action) {
  let isPlanned = false;
  return () => {
    if (isPlanned) return;
    isPlanned = true;
    requestAnimationFrame(() => {
      isPlanned = false;
      action();
    });
  };
}

/** Fit a canvas to its box and the screen's pixels; return its context, or null while it has no size. */
function prepareCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  if (!(width > 0 && height > 0)) return null;
  const wide = Math.round(width * ratio),
    high = Math.round(height * ratio);
  if (canvas.width !== wide) canvas.width = wide;
  if (canvas.height !== high) canvas.height = high;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** Make a button that copies `text`, shown as `label`. */
function copyButton(text, label = text) {
  const made = button(
    { class: "copy", title: "Copy" },
    () => {
      copy(text).then(
        () => {
          made.classList.add("done");
          say("Copied");
          setTimeout(() => made.classList.remove("done"), 1200);
        },
        () => say("Cannot copy"),
      );
    },
    element("span", { class: "mono" }, label),
    icon("copy"),
    icon("done"),
  );
  return made;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Refused, or not there: a page of plain HTTP from another machine has no clipboard of its own.
    const area = element("textarea", { class: "unseen" });
    area.value = text;
    document.body.append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    if (!isCopied) throw new Error("not copied");
  }
}
