// The widget TimelineView: entries of the timeline in lanes, and buttons that step through them.
import { unpackColumns } from "./unpack_columns.js";
import { make } from "./dom.js";
import { labEndedBar } from "./lab_ended_bar.js";
import { guarded, listening } from "./error_guard.js";

const PLAY_MS = 900;
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

// Return the columns in which threads sleep because of a DONTWAKE: [from, to) for each such ioctl.
export function gaps(events) {
  const place = new Map(events.map((event, at) => [event.n, at]));
  return events.flatMap((event, at) => {
    if (event.gap === null) return [];
    return [[at, event.gap < 0 || !place.has(event.gap) ? events.length : place.get(event.gap)]];
  });
}

export function eventText(event) {
  const gap = event.gap === null ? "" : event.gap < 0 ? "; DONTWAKE: the threads still sleep" : "; DONTWAKE: woken later";
  const change = event.change ? `; ${event.change}` : "";
  const took = event.took > 0 ? `, took ${duration(event.took)}` : "";
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
      ["▶|", "newest entry", () => this.go(this.events.length - 1)],
    ]) {
      const button = make("button", { type: "button", "aria-label": name, title: name }, label);
      listen.on(button, "click", action);
      bar.append(button);
    }
    this.play = make("button", { type: "button", "aria-pressed": "false" }, "play");
    listen.on(this.play, "click", () => this.toggle());
    bar.append(this.play);
    this.element.append(labEndedBar(model, listen), make("p", { class: "uffdlab-title" }, "Timeline"), bar, this.lanes, this.status);
    listen.on(this.lanes, "keydown", (event) => this.key(event));
    listen.on(this.lanes, "click", (event) => {
      const mark = event.target.closest(".uffdlab-event");
      if (mark) this.go(Number(mark.dataset.at));
    });
    this.tick = guarded(model, el, () => this.turn());
    listen.model("change:_events", () => this.draw());
    listen.model("change:position", () => this.mark());
    listen.also(() => clearInterval(this.timer));
    this.draw();
  }

  at() {
    const position = this.model.get("position");
    return this.events.findIndex((event) => event.n === position);
  }

  go(at) {
    const event = this.events[Math.max(0, Math.min(this.events.length - 1, at))];
    if (!event) return;
    this.model.set("position", event.n);
    this.model.save_changes();
    this.mark();
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

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10 };
    if (event.key in steps) this.go(this.at() + steps[event.key]);
    else if (event.key === "Home") this.go(0);
    else if (event.key === "End") this.go(this.events.length - 1);
    else if (event.key === " ") this.toggle();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  draw() {
    this.events = eventsOf(this.model.get("_events"), Object.keys(this.model.get("_lanes")));
    const names = { ...this.model.get("_lanes"), other: "other" };
    const used = Object.keys(names).filter((lane) => this.events.some((event) => event.lane === lane));
    const rowOf = new Map(used.map((lane, at) => [lane, at + 1]));
    const parts = used.map((lane) => {
      const name = make("span", { class: "uffdlab-lane", "aria-hidden": "true" }, names[lane]);
      name.style.gridArea = `${rowOf.get(lane)} / 1`;
      return name;
    });
    const asleep = gaps(this.events);
    for (const [from, to] of asleep) {
      const line = make("span", { class: "uffdlab-gap", "aria-hidden": "true", title: "asleep: DONTWAKE" });
      line.style.gridArea = `${rowOf.get(this.events[from].lane)} / ${from + 2} / auto / ${to + 3}`;
      parts.push(line);
    }
    const stem = `uffdlab-event-${Math.random().toString(36).slice(2)}`;
    this.events.forEach((event, at) => {
      const mark = make("span", {
        class: `uffdlab-event uffdlab-${event.lane}`, role: "option", id: `${stem}-${at}`, "data-at": at,
        "aria-label": eventText(event), title: eventText(event), "aria-selected": "false",
      }, LETTERS[event.lane] || "·");
      mark.style.gridArea = `${rowOf.get(event.lane)} / ${at + 2}`;
      parts.push(mark);
    });
    this.lanes.replaceChildren(...parts);
    this.mark();
  }

  mark() {
    const at = this.at();
    for (const old of this.lanes.querySelectorAll('[aria-selected="true"]')) old.setAttribute("aria-selected", "false");
    const mark = this.lanes.querySelector(`[data-at="${at}"]`);
    if (!mark) {
      this.status.textContent = this.events.length ? "" : "Nothing has happened yet.";
      this.lanes.removeAttribute("aria-activedescendant");
      return;
    }
    mark.setAttribute("aria-selected", "true");
    this.lanes.setAttribute("aria-activedescendant", mark.id);
    this.status.textContent = `entry ${at + 1} of ${this.events.length}, ${eventText(this.events[at])}`;
    const { left, width } = mark.getBoundingClientRect();
    const box = this.lanes.getBoundingClientRect();
    if (left < box.left || left + width > box.right) this.lanes.scrollLeft += left - box.left - box.width / 2;
  }
}

function render({ model, el }) {
  const listen = listening(model, el);
  guarded(model, el, () => el.append(new TimelineView(model, el, listen).element))();
  return () => listen.end();
}

export default { render };
