// The widget TimelineView: entries of the timeline as spans in lanes, on a time axis, and buttons that step through them.
import { unpackColumns } from "./unpack_columns.js";
import { make } from "./dom.js";
import { updateStaticOutput } from "./static_output.js";
import { labEndedBar } from "./lab_ended_bar.js";
import { guarded, listening } from "./error_guard.js";
import { rowsFor, TimeAxis } from "./time_axis.js";

const PLAY_MS = 900;
const LEAST = 20; // px: an event that takes less time is drawn as wide
const ROW = 26; // px
const LABEL = 62; // px: room for the time of a stretch
const FINEST = 64; // px per µs
const COARSEST = 1 / 4096;
const NEWEST = -1; // a position: Python may know newer entries than this view
const LETTERS = { touch: "T", message: "M", ioctl: "I", snapshot: "S" };

// "12.3 µs", "4.56 ms", "1.20 s"
export function duration(us) {
  if (us < 1000) return `${us.toFixed(1)} µs`;
  return us < 1e6 ? `${(us / 1000).toFixed(2)} ms` : `${(us / 1e6).toFixed(2)} s`;
}

const COLUMNS = ["i4", "u1", "f8", "f8", "i4", "text", "text"];

// Return the events: gap is the number of the entry that wakes the threads a DONTWAKE left asleep, -1 if there is none
// yet, null for entries without DONTWAKE.
export function eventsOf(view, lanes) {
  const [numbers, lane, at, took, gap, text, change] = unpackColumns(view, COLUMNS);
  return text.map((_, row) => ({
    n: numbers[row], lane: lanes[lane[row]] || "other", at: at[row], took: took[row],
    gap: gap[row] === -2 ? null : gap[row], text: text[row], change: change[row],
  }));
}

// Return the ioctls whose DONTWAKE leaves threads asleep, each with the event that wakes them, or null.
export function gaps(events) {
  const positions = new Map(events.map((event, at) => [event.n, at]));
  return events.flatMap((event, at) => {
    if (event.gap === null) return [];
    return [[at, event.gap < 0 || !positions.has(event.gap) ? null : positions.get(event.gap)]];
  });
}

// Return the scale, in px per µs, at which half of the events that take time are wider than the least width.
export function fittingScale(events) {
  const took = events.map((event) => event.took).filter((each) => each > 0).sort((one, other) => one - other);
  const middle = took.length ? took[took.length >> 1] : 100;
  return Math.min(FINEST, Math.max(COARSEST, 2 ** Math.round(Math.log2((2 * LEAST) / middle))));
}

export function eventText(event) {
  const gap = event.gap === null ? "" : event.gap < 0 ? "; DONTWAKE: the threads still sleep" : "; DONTWAKE: woken later";
  const change = event.change ? `; ${event.change}` : "";
  const took = event.took < 0 ? ", has not ended" : event.took > 0 ? `, took ${duration(event.took)}` : "";
  return `at ${duration(event.at)}${took}: ${event.text}${change}${gap}`;
}

class TimelineView {
  constructor(model, el, listen) {
    this.model = model;
    this.timer = 0;
    this.element = make("div", { class: "uffdlab uffdlab-timeline", "data-lm-suppress-shortcuts": "true" });
    this.lanes = make("div", { class: "uffdlab-lanes", role: "listbox", "aria-label": "timeline", tabindex: 0 });
    this.status = make("p", { role: "status", class: "uffdlab-status" });
    const bar = make("div", { class: "uffdlab-zoom", role: "group", "aria-label": "step" });
    for (const [label, name, action] of [
      ["|◀", "first entry", () => this.go(0)],
      ["◀", "one entry back", () => this.go(this.at() - 1)],
      ["▶", "one entry on", () => this.go(this.at() + 1)],
      ["▶|", "newest entry", () => this.choose(NEWEST)],
    ]) {
      const button = make("button", { type: "button", "aria-label": name, title: name }, label);
      listen.on(button, "click", action);
      bar.append(button);
    }
    for (const [label, name, action] of [
      ["+", "zoom in", () => this.zoom(2)],
      ["−", "zoom out", () => this.zoom(0.5)],
      ["reset", "reset the zoom", () => this.zoom(0)],
    ]) {
      const button = make("button", { type: "button", "aria-label": name, title: name }, label);
      listen.on(button, "click", action);
      bar.append(button);
    }
    this.play = make("button", { type: "button", "aria-pressed": "false", title: "step through the entries" }, "play");
    listen.on(this.play, "click", () => this.toggle());
    bar.append(this.play);
    this.names = make("div", { class: "uffdlab-lane-names", "aria-hidden": "true" });
    const body = make("div", { class: "uffdlab-timeline-body" }, this.names, this.lanes);
    this.element.append(labEndedBar(model, listen), make("p", { class: "uffdlab-title" }, "Timeline"), bar, body, this.status);
    listen.on(this.lanes, "keydown", (event) => this.onKeyDown(event));
    listen.on(this.lanes, "click", (event) => {
      const element = event.target.closest(".uffdlab-event");
      if (element) this.go(Number(element.dataset.at));
    });
    this.tick = guarded(model, el, () => this.turn());
    listen.model("change:_events", () => this.draw());
    listen.model("change:position", () => this.showChosen());
    listen.also(() => clearInterval(this.timer));
    // In a tab that is closed nothing has a size; the chosen entry is brought into view when the tab is opened.
    let width = 0;
    const sizes = new ResizeObserver(guarded(model, el, () => {
      const opened = !width && this.lanes.clientWidth;
      width = this.lanes.clientWidth;
      if (opened) this.scrollToChosen();
    }));
    sizes.observe(this.lanes);
    listen.also(() => sizes.disconnect());
    this.draw();
  }

  at() {
    const position = this.model.get("position");
    if (position === NEWEST) return this.events.length - 1;
    return this.events.findIndex((event) => event.n === position);
  }

  go(at) {
    const event = this.events[Math.max(0, Math.min(this.events.length - 1, at))];
    if (event) this.choose(event.n);
  }

  choose(position) {
    this.model.set("position", position);
    this.model.save_changes();
    this.showChosen();
  }

  toggle() {
    const playing = this.timer !== 0;
    clearInterval(this.timer);
    this.timer = 0;
    if (!playing) {
      if (this.at() >= this.events.length - 1) this.go(0);
      this.timer = setInterval(this.tick, PLAY_MS);
    }
    this.play.setAttribute("aria-pressed", String(!playing));
    this.play.textContent = playing ? "play" : "stop";
  }

  turn() {
    if (this.at() >= this.events.length - 1) this.toggle();
    else this.go(this.at() + 1);
  }

  onKeyDown(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10 };
    if (event.key in steps) this.go(this.at() + steps[event.key]);
    else if (event.key === "Home") this.go(0);
    else if (event.key === "End") this.choose(NEWEST);
    else if (event.key === " ") this.toggle();
    else if (event.key === "+" || event.key === "=") this.zoom(2);
    else if (event.key === "-") this.zoom(0.5);
    else if (event.key === "0") this.zoom(0);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // Change the scale; with 0 take the one that fits.
  zoom(by) {
    this.scale = by ? Math.min(FINEST, Math.max(COARSEST, this.scale * by)) : 0;
    this.draw();
    this.showChosen();
  }

  draw() {
    this.events = eventsOf(this.model.get("_events"), Object.keys(this.model.get("_lanes")));
    const { events } = this;
    if (!this.scale) this.scale = fittingScale(events);
    const names = { ...this.model.get("_lanes"), other: "other" };
    const used = Object.keys(names).filter((lane) => events.some((event) => event.lane === lane));
    const end = Math.max(0, ...events.map((event) => event.at + Math.max(0, event.took)));
    const ends = events.map((event) => (event.took < 0 ? end : event.at + event.took));
    const axis = new TimeAxis([...events.map((event) => event.at), ...ends], this.scale);
    const spans = events.map((event, at) => [axis.x(event.at), Math.max(axis.x(event.at) + LEAST, axis.x(ends[at]))]);
    // The row of each event: lanes below each other, in each as many rows as its events need.
    const rows = new Array(events.length);
    const laneAt = new Map();
    let row = 1; // the first has the times
    for (const lane of used) {
      const inLane = events.flatMap((event, at) => (event.lane === lane ? [at] : []));
      const own = rowsFor(inLane.map((at) => spans[at]));
      inLane.forEach((at, which) => (rows[at] = row + own[which]));
      laneAt.set(lane, row);
      row += Math.max(1, ...own.map((each) => each + 1));
    }
    this.names.replaceChildren(
      ...used.map((lane) => this.placed(make("span", { class: "uffdlab-lane" }, names[lane]), 0, laneAt.get(lane))),
    );
    const width = Math.max(0, ...spans.map(([, to]) => to)) + LABEL;
    const canvas = make("div", { class: "uffdlab-axis", role: "presentation" });
    canvas.style.cssText = `width: ${width}px; height: ${row * ROW}px`;
    canvas.append(...this.scaleMarks(axis, row));
    for (const [from, to] of gaps(events)) {
      const line = make("span", { class: "uffdlab-gap", "aria-hidden": "true", title: "asleep: DONTWAKE" });
      const until = to === null ? axis.width + LEAST : spans[to][0];
      line.style.width = `${Math.max(4, until - spans[from][0])}px`;
      canvas.append(this.placed(line, spans[from][0], rows[from]));
    }
    const stem = `uffdlab-event-${Math.random().toString(36).slice(2)}`;
    events.forEach((event, at) => {
      const [from, to] = spans[at];
      const element = make("span", {
        class: `uffdlab-event uffdlab-${event.lane}${event.took < 0 ? " uffdlab-open" : ""}`, role: "option",
        id: `${stem}-${at}`, "data-at": at,
        "aria-label": eventText(event), title: eventText(event), "aria-selected": "false",
      }, LETTERS[event.lane] || "·");
      element.style.width = `${to - from - 1}px`;
      canvas.append(this.placed(element, from, rows[at]));
    });
    this.lanes.replaceChildren(canvas);
    this.showChosen();
  }

  placed(element, x, row) {
    element.style.left = `${x}px`;
    element.style.top = `${row * ROW}px`;
    return element;
  }

  // The times at the beginning of each stretch, and the stretches that are compressed.
  scaleMarks(axis, rows) {
    const parts = [];
    let free = 0;
    const label = (time, x) => {
      if (x < free || time === undefined) return;
      free = x + LABEL;
      parts.push(this.placed(make("span", { class: "uffdlab-tick", "aria-hidden": "true" }, duration(time)), x, 0));
    };
    label(axis.times[0], 0);
    for (const { from, to, x } of axis.breaks) {
      const text = `${duration(to - from)} without anything`;
      const left = make("span", { class: "uffdlab-break", "aria-hidden": "true", title: text }, "//");
      left.style.height = `${rows * ROW}px`;
      parts.push(this.placed(left, x + LEAST, 0));
      label(to, axis.x(to));
    }
    return parts;
  }

  // Show which entry is chosen, and bring it into view.
  showChosen() {
    const at = this.at();
    for (const old of this.lanes.querySelectorAll('[aria-selected="true"]')) old.setAttribute("aria-selected", "false");
    const element = this.lanes.querySelector(`[data-at="${at}"]`);
    if (!element) {
      this.status.textContent = this.events.length ? "" : "Nothing has happened yet.";
      this.lanes.removeAttribute("aria-activedescendant");
      return;
    }
    element.setAttribute("aria-selected", "true");
    this.lanes.setAttribute("aria-activedescendant", element.id);
    this.status.textContent = `entry ${at + 1} of ${this.events.length}, ${eventText(this.events[at])}`;
    this.scrollToChosen();
  }

  scrollToChosen() {
    const element = this.lanes.querySelector('[aria-selected="true"]');
    if (!element) return;
    const { left, width } = element.getBoundingClientRect();
    const box = this.lanes.getBoundingClientRect();
    if (left < box.left || left + width > box.right) this.lanes.scrollLeft += left - box.left - box.width / 2;
  }
}

function render({ model, el }) {
  const listen = listening(model, el);
  guarded(model, el, () => updateStaticOutput(model, listen))();
  guarded(model, el, () => el.append(new TimelineView(model, el, listen).element))();
  return () => listen.end();
}

export default { render };
