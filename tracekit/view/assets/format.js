"use strict";

/* Durations, times and counts as people read them. */

const UNITS = [
  [60e9, "min"],
  [1e9, "s"],
  [1e6, "ms"],
  [1e3, "µs"],
  [1, "ns"],
];

/** 1234567 -> "1.23ms" */
function formatDuration(ns) {
  if (ns === 0) return "0";
  if (ns < 0) return `−${formatDuration(-ns)}`;
  const [size, unit] = UNITS.find(([size]) => ns >= size) ?? UNITS[UNITS.length - 1];
  const value = ns / size;
  const digits = unit === "ns" || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${Number(value.toFixed(digits)).toLocaleString("en")}${unit}`;
}

/** "12.5ms" -> 12500000; null where it is no duration. */
function parseDuration(text) {
  const found = /^(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|min)?$/.exec(text);
  if (!found) return null;
  const sizes = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9, min: 60e9 };
  return Number(found[1]) * sizes[found[2] ?? "ms"];
}

const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });

/** The time of day of milliseconds since the epoch, whatever a trace says they are. */
function formatClock(ms) {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? "no such time" : CLOCK.format(date);
}

/** The same with its day and its milliseconds. */
function formatTime(ms) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "no such time";
  return `${DAY.format(date)} ${CLOCK.format(date)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

// Controls, marks that turn the direction of text around, and whatever else is not seen, but for line ends and tabs; the
// joiners stay, which letters and emoji need.
const UNSEEN = /[^\P{C}\n\t\u200c\u200d]|[\u2028\u2029]/gu;

/** The text with what is not seen in it written out: nobody's text may rearrange what stands beside it. */
function visible(text) {
  return text.replace(UNSEEN, (found) => `\\u{${found.codePointAt(0).toString(16)}}`);
}

/** (1200, "span") -> "1,200 spans" */
function formatCount(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
