"""What tests ask of a page, in its own language."""

from __future__ import annotations

from typing import Final

# The names of the spans in sight, from top to bottom: rows are used again, in any order.
SPAN_NAMES: Final = """
[...document.querySelectorAll(".span-row:not([hidden])")]
  .sort((a, b) => a.dataset.index - b.dataset.index)
  .map((row) => row.querySelector(".name").textContent)
"""

# Controls without a name for a screen reader.
NAMELESS: Final = """
[...document.querySelectorAll("button, input, select, [role=listbox], [role=tree]")]
  .filter((control) => control.checkVisibility() && !control.ariaLabel && !control.textContent.trim())
  .map((control) => control.outerHTML)
"""

# Whether one sees where the keyboard's focus is: lists show it on their current row.
FOCUS_IS_SEEN: Final = """
(() => {
  const active = document.activeElement;
  const shown = active.matches("[role=listbox], [role=tree]") ? active.querySelector("[aria-selected=true]") : active;
  return active === document.body || getComputedStyle(shown).outlineStyle !== "none";
})()
"""

# What is wider than its place, so that one would have to scroll sideways.
TOO_WIDE: Final = """
[document.documentElement, ...document.querySelectorAll("main > *, .scroller")]
  .filter((box) => box.checkVisibility() && box.scrollWidth > box.clientWidth + 1)
  .map((box) => box.id || box.tagName)
"""

# Notes how long each task of the page kept it from answering, in ms, if that was more than 50.
LONG_TASKS: Final = """
window.tasks = [];
new PerformanceObserver((list) => tasks.push(...list.getEntries().map((task) => Math.round(task.duration))))
  .observe({ type: "longtask" });
"""

# The texts in sight whose contrast to what is behind them is less than 4.5: WCAG 2.2, 1.4.3.
TOO_FAINT: Final = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = rgb(getComputedStyle(at).backgroundColor);
      if (found[3] > 200) return found;
    }
    return [255, 255, 255, 255];
  };
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => [r, g, b]
    .map((part) => linear(part / 255))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data;
    if (!text.trim() || !element.checkVisibility() || element.closest(".unseen, .took.inside, option")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [luminance(rgb(style.color)), luminance(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) bad.push(`${contrast.toFixed(2)} ${element.className || element.tagName}: ${text}`);
  }
  return [...new Set(bad)];
})()"""
