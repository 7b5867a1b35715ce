// @vitest-environment happy-dom
import { describe, expect, it, vi } from "vitest";
import timelineView, { duration, eventsOf, eventText, fittingScale, gaps } from "../../uffdlab/widgets/static/timeline_view.js";
import { Model, packed, texts } from "./model.js";
import { el, press } from "./rendered.js";

describe("the texts and scales of a timeline", () => {
  const event = (n, gap = null) => ({ n, gap, at: 12.34, took: 0, text: "UFFDIO_WAKE", change: "" });
  it("show times in a suitable unit", () => {
    expect([12.34, 4560, 1.2e6].map(duration)).toEqual(["12.3 µs", "4.56 ms", "1.20 s"]);
  });
  it("draw a gap up to the wake-up, or to the end", () => {
    expect(gaps([event(7, 9), event(8), event(9), event(10, -1)])).toEqual([[0, 2], [3, null]]);
  });
  it("include a scale at which the durations are wide enough", () => {
    const took = (...durations) => durations.map((us) => ({ ...event(1), took: us }));
    expect(fittingScale(took(0, 10, 10, 5000))).toBe(4);
    expect(fittingScale(took(1e9))).toBe(1 / 4096);
    expect(fittingScale([])).toBe(0.5);
  });
  it("say that a touch has not ended", () => {
    expect(eventText({ ...event(-9), took: -1, text: "read of page 5: not ended" })).toContain("has not ended: read");
  });
  it("say what happened, and whether threads still sleep", () => {
    expect(eventText(event(1))).toBe("at 12.3 µs: UFFDIO_WAKE");
    expect(eventText(event(1, -1))).toContain("DONTWAKE: the threads still sleep");
  });
  it("are empty without data", () => expect(eventsOf(null, ["touch"])).toEqual([]));
});

describe("a timeline", () => {
  const events = (...names) =>
    packed(
      names.length, new Int32Array(names.map((_, index) => index + 10)), new Uint8Array(names.map((_, index) => index % 2)),
      new Float64Array(names.map((_, index) => index * 5)), new Float64Array(names.length), new Int32Array(names.map(() => -2)),
      texts(...names), texts(...names.map(() => "")),
    );
  const view = (position) => {
    const model = new Model({ _lanes: { touch: "touches", ioctl: "ioctls" }, _events: events("read", "UFFDIO_WAKE", "write"), position });
    return [model, timelineView.render({ model, el })];
  };
  const selected = () => el.querySelector('[aria-selected="true"]').getAttribute("aria-label");

  it("brings the chosen entry into view when its tab is opened", () => {
    let resized = null;
    vi.stubGlobal("ResizeObserver", class {
      constructor(action) { resized = action; }
      observe() {}
      disconnect() { resized = null; }
    });
    const [, end] = view(12);
    const lanes = el.querySelector('[role="listbox"]');
    const box = (left, width) => () => ({ left, width, right: left + width });
    lanes.getBoundingClientRect = box(100, 400);
    el.querySelector('[aria-selected="true"]').getBoundingClientRect = box(900, 20);
    expect(lanes.scrollLeft).toBe(0);
    Object.defineProperty(lanes, "clientWidth", { value: 400 });
    resized();
    expect(lanes.scrollLeft).toBe(900 - 100 - 200);
    lanes.scrollLeft = 7; // by the user; another width is no reason to scroll
    resized();
    expect(lanes.scrollLeft).toBe(7);
    end();
    expect(resized).toBe(null);
    vi.unstubAllGlobals();
  });
  it("can be stepped through by keyboard", () => {
    const [model] = view(12);
    const lanes = el.querySelector('[role="listbox"]');
    press(lanes, "Home");
    expect([model.get("position"), selected()]).toEqual([10, "at 0.0 µs: read"]);
    press(lanes, "ArrowRight");
    expect(el.querySelector('[role="status"]').textContent).toBe("entry 2 of 3, at 5.0 µs: UFFDIO_WAKE");
    press(lanes, "PageUp");
    press(lanes, "ArrowLeft");
    expect(model.get("position")).toBe(10);
  });
  it("zooms: a duration gets wider, the selected entry stays", () => {
    const model = new Model({ _lanes: { touch: "touches" }, position: 10, _events: packed(
      1, new Int32Array([10]), new Uint8Array(1), new Float64Array([0]), new Float64Array([20]), new Int32Array([-2]), texts("read"), texts(""),
    ) });
    timelineView.render({ model, el });
    const width = () => parseFloat(el.querySelector('[role="option"]').style.width);
    const before = width();
    press(el.querySelector('[role="listbox"]'), "+");
    expect(width()).toBe(2 * before + 1);
    press(el.querySelector('[role="listbox"]'), "0");
    expect([width(), model.get("position")]).toEqual([before, 10]);
  });
  it("plays to its end and stops", () => {
    const [model] = view(12);
    const play = [...el.querySelectorAll("button")].at(-1);
    play.click();
    expect([model.get("position"), play.textContent]).toEqual([10, "stop"]);
    vi.advanceTimersByTime(2700);
    expect([model.get("position"), play.textContent]).toEqual([12, "play"]);
  });
  it("selects a clicked entry, and says if it is empty", () => {
    const [model, end] = view(12);
    el.querySelectorAll('[role="option"]')[1].click();
    expect(model.get("position")).toBe(11);
    model.state.position = -1;
    model.change("_events", events());
    expect(el.querySelector('[role="status"]').textContent).toBe("Nothing has happened yet.");
    end();
    expect(model.listeners).toBe(0);
  });
});
