// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import codeBox from "../../uffdlab/widgets/static/code_box.js";
import { make, table } from "../../uffdlab/widgets/static/dom.js";
import { labEndedBar } from "../../uffdlab/widgets/static/lab_ended_bar.js";
import faultLog from "../../uffdlab/widgets/static/fault_log.js";
import { guarded, listening } from "../../uffdlab/widgets/static/error_guard.js";
import pageGrid from "../../uffdlab/widgets/static/page_grid.js";
import statusLine from "../../uffdlab/widgets/static/status_line.js";
import timelineView from "../../uffdlab/widgets/static/timeline_view.js";
import { Model, packed, texts } from "./model.js";

let el;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "performance"] });
  el = document.body.appendChild(document.createElement("div"));
});
afterEach(() => {
  vi.useRealTimers();
  el.remove();
});

const press = (target, key, more = {}) =>
  target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
const texted = (selector) => [...el.querySelectorAll(selector)].map((each) => each.textContent);

describe("elements", () => {
  it("take text as text, never as HTML", () => {
    const made = make("p", { class: "x", hidden: true, title: null, lang: false }, "<b>no</b>");
    expect(made.outerHTML).toBe('<p class="x" hidden="">&lt;b&gt;no&lt;/b&gt;</p>');
  });
  it("make a table with headers", () => {
    const made = table("bits", ["bit", "value"], [["0", "1"]]);
    expect(made.querySelector("caption").textContent).toBe("bits");
    expect(made.querySelector('th[scope="row"]').textContent).toBe("0");
    expect(made.querySelectorAll('th[scope="col"]').length).toBe(2);
  });
});

describe("an error", () => {
  it("is shown in the widget and sent to Python", () => {
    const model = new Model();
    guarded(model, el, () => null.nothing)();
    expect(el.querySelector('[role="alert"]').textContent).toContain("An error in this widget's JavaScript");
    expect(model.sent[0].error).toMatch(/null/);
  });
  it("of a promise too", async () => {
    const model = new Model();
    await guarded(model, el, () => Promise.reject(new Error("later")))();
    expect(model.sent[0].error).toContain("later");
  });
  it("in a listener leaves the others alone", () => {
    const model = new Model();
    const listen = listening(model, el);
    const heard = [];
    listen.model("change:x", () => null.nothing);
    listen.model("change:x", () => heard.push(1));
    model.becomes("x", 1);
    expect(heard).toEqual([1]);
    listen.end();
    expect(model.listeners).toBe(0);
  });
});

describe("the bar of a lab that has ended", () => {
  it("says why, and starts again", () => {
    const model = new Model();
    el.append(labEndedBar(model, listening(model, el)));
    expect(el.textContent).toBe("");
    model.becomes("ended", "the machine is gone");
    expect(texted("p")).toEqual(["No longer live: the machine is gone"]);
    el.querySelector("button").click();
    expect(model.sent).toEqual([{ ask: "start again" }]);
    model.becomes("_starts", true);
    expect([texted("p")[0], el.querySelector("button").disabled]).toEqual(["A new lab boots …", true]);
    model.becomes("ended", "");
    expect(el.textContent).toBe("");
  });
});

describe("small parts", () => {
  it("a line that is read out", () => {
    const model = new Model({ text: "one" });
    const end = statusLine.render({ model, el });
    expect(el.querySelector('[role="status"]').textContent).toBe("one");
    model.becomes("text", "two");
    expect(el.textContent).toBe("two");
    end();
    expect(model.listeners).toBe(0);
  });
  it("code to copy", async () => {
    const model = new Model({ text: "err(1);", label: "as C" });
    const written = [];
    vi.stubGlobal("navigator", { clipboard: { writeText: async (text) => written.push(text) } });
    window.isSecureContext = true;
    codeBox.render({ model, el });
    expect(el.querySelector("pre").getAttribute("aria-label")).toBe("as C");
    el.querySelector("button").click();
    await vi.waitFor(() => expect(el.querySelector('[role="status"]').textContent).toBe(" copied"));
    expect(written).toEqual(["err(1);"]);
    model.becomes("text", "other");
    expect([el.querySelector("code").textContent, el.querySelector('[role="status"]').textContent]).toEqual(["other", ""]);
    vi.unstubAllGlobals();
  });
});

const KINDS = [
  { letter: "·", text: "absent", state: "absent", colour: "#F1F1F1", ink: "#000000", hatch: "", span: 1 },
  { letter: "U", text: "present, uffd-wp", state: "present", colour: "#E69F00", ink: "#000000", hatch: "////", span: 1 },
  { letter: "H", text: "huge", state: "huge", colour: "#0072B2", ink: "#FFFFFF", hatch: "", span: 4 },
];

describe("a grid of cells", () => {
  const view = (codes) => new DataView(new Uint8Array(codes).buffer);
  const grid = (codes, more = {}) => {
    const meta = { title: "region-1", region: "region-1", first: 0, count: codes.length, page_size: 4096, start: "0x10000000", mixed: KINDS[0] };
    const model = new Model({ _meta: meta, _kinds: KINDS, _codes: view(codes), _before: view([]), selection: [], cursor: 0, mode: "side", ...more });
    const endings = [pageGrid.initialize({ model }), pageGrid.render({ model, el })];
    return [model, () => endings.forEach((end) => end())];
  };
  const cell = (page, at = 0) => [...el.querySelectorAll('[role="grid"]')][at].querySelectorAll('[role="gridcell"]')[page];

  it("labels every page and counts each kind", () => {
    grid([0, 1, 1, 0]);
    expect(cell(1).getAttribute("aria-label")).toBe("page 1: present, uffd-wp");
    expect(texted(".uffdlab-legend li").map((each) => each.trim())).toEqual(["· absent: 2", "U present, uffd-wp: 2"]);
    expect([...el.querySelectorAll('[role="gridcell"][tabindex="0"]')].length).toBe(1);
  });
  it("is moved through and selected by keyboard, cursor and selection in one message", () => {
    const [model] = grid(new Array(64).fill(0));
    cell(0).focus();
    press(cell(0), "ArrowDown");
    expect(document.activeElement).toBe(cell(8));
    press(cell(8), "ArrowRight", { shiftKey: true });
    expect([model.get("selection"), model.get("cursor")]).toEqual([[8, 2], 9]);
    expect(cell(9).getAttribute("aria-selected")).toBe("true");
    expect(texted(".uffdlab-selection")).toEqual(["selected: pages 8–9"]);
    press(cell(9), "Escape");
    expect(model.get("selection")).toEqual([]);
    press(cell(9), "a", { ctrlKey: true });
    expect(model.get("selection")).toEqual([0, 64]);
  });
  it("asks Python for the entry under the cursor once, and keeps it", () => {
    const [model] = grid([0, 1]);
    cell(1).focus();
    vi.advanceTimersByTime(100);
    const asked = model.sent.filter((each) => each.ask === "entry");
    expect(asked).toEqual([{ ask: "entry", page: 1, which: "after", id: "after 1" }]);
    const entry = { title: "PTE", state: "present", facts: "Address 0x1.", rows: [["10", "uffd-wp", "1", "protected"]] };
    model.tell("msg:custom", { id: "after 1", entry });
    expect(texted(".uffdlab-entry td")).toEqual(["uffd-wp", "1", "protected"]);
    cell(0).focus();
    cell(1).focus();
    vi.advanceTimersByTime(100);
    expect(model.sent.filter((each) => each.page === 1).length).toBe(1);
  });
  it("writes a changed range over its own pages", () => {
    const [model] = grid([0, 0, 0, 0]);
    model.tell("msg:custom", { patch: 1 }, [view([1, 1])]);
    expect([0, 1, 2, 3].map((page) => cell(page).textContent)).toEqual(["·", "U", "U", "·"]);
  });
  it("lets a huge page span its width", () => {
    grid([2, 2, 2, 2, 2, 2, 2, 2]);
    expect([0, 1, 4, 5].map((page) => cell(page).textContent)).toEqual(["H", "", "H", ""]);
    expect(cell(1).classList.contains("uffdlab-joined")).toBe(true);
  });
  it("shows before and after, or only what changed", () => {
    const [model] = grid([1, 0], { _before: view([0, 0]) });
    expect([cell(0, 0).textContent, cell(0, 1).textContent]).toEqual(["·", "U"]);
    model.becomes("mode", "changed");
    expect(cell(1).getAttribute("aria-label")).toBe("page 1: absent, unchanged");
    expect(cell(0).classList.contains("uffdlab-faded")).toBe(false);
  });
  it("flickers until hold still is pressed", () => {
    const [model] = grid([1, 0], { _before: view([0, 0]) });
    model.becomes("mode", "flicker");
    vi.advanceTimersByTime(900);
    expect(cell(0).textContent).toBe("·");
    vi.advanceTimersByTime(900);
    expect(cell(0).textContent).toBe("U");
    el.querySelector("button[aria-pressed]").click();
    vi.advanceTimersByTime(5000);
    expect(cell(0).textContent).toBe("U");
  });
  it("leaves the choice to whoever shows several", () => {
    grid([1, 0], { _before: view([0, 0]), _chooses: false, mode: "changed" });
    expect(el.querySelector("input")).toBe(null);
  });
  it("leaves no listener", () => {
    const [model, end] = grid([0]);
    end();
    expect(model.listeners).toBe(0);
  });
});

describe("a fault log", () => {
  const log = (...ids) => {
    const what = texts(...ids.map((id) => `write to page ${id}`));
    const kinds = texts(...ids.map(() => "minor, write"));
    return packed(ids.length, new Float64Array(ids), new Float64Array(ids.map(() => 1)), what, what, kinds);
  };
  const state = (...ids) => ({
    _actions: ["continue", "wake"], _waiting: log(...ids),
    _rows: packed(1, new Float64Array([1234.5]), texts("Fault(page=3)")), _counts: packed(1, new Float64Array([7]), texts("minor, write")),
  });
  it("shows what waits, for how long, and what came", () => {
    const model = new Model(state(3));
    faultLog.render({ model, el });
    expect(el.textContent).toContain("write to page 3 (minor, write) waits for 1.0 s");
    expect(el.textContent).toContain("7 messages: 7 minor, write");
    expect(texted("tbody th")).toEqual(["1,234.5"]);
    vi.advanceTimersByTime(2000);
    expect(el.textContent).toContain("waits for 3.0 s");
  });
  it("resolves the one that is chosen, also when others come and go", () => {
    const model = new Model(state(3, 5));
    faultLog.render({ model, el });
    const second = el.querySelectorAll('input[type="radio"]')[1];
    second.checked = true;
    second.dispatchEvent(new Event("change", { bubbles: true }));
    model.becomes("_waiting", log(5, 9));
    el.querySelectorAll("button")[0].click();
    expect(model.sent).toEqual([{ resolve: "continue", touch: 5, data: "" }]);
  });
  it("keeps the focus on a button when nothing waits any more", () => {
    const model = new Model(state(3));
    const end = faultLog.render({ model, el });
    const [button] = el.querySelectorAll("button");
    button.focus();
    model.becomes("_waiting", log());
    expect(button.getAttribute("aria-disabled")).toBe("true");
    expect(document.activeElement).toBe(button);
    expect(el.textContent).toContain("No touch waits.");
    end();
    expect(model.listeners).toBe(0);
  });
});

describe("a timeline", () => {
  const events = (...names) =>
    packed(
      names.length, new Int32Array(names.map((_, at) => at + 10)), new Uint8Array(names.map((_, at) => at % 2)),
      new Float64Array(names.map((_, at) => at * 5)), new Float64Array(names.length), new Int32Array(names.map(() => -2)),
      texts(...names), texts(...names.map(() => "")),
    );
  const view = (position) => {
    const model = new Model({ _lanes: { touch: "touches", ioctl: "ioctls" }, _events: events("read", "UFFDIO_WAKE", "write"), position });
    return [model, timelineView.render({ model, el })];
  };
  const chosen = () => el.querySelector('[aria-selected="true"]').getAttribute("aria-label");

  it("is stepped through by keyboard", () => {
    const [model] = view(12);
    const lanes = el.querySelector('[role="listbox"]');
    press(lanes, "Home");
    expect([model.get("position"), chosen()]).toEqual([10, "at 0.0 µs: read"]);
    press(lanes, "ArrowRight");
    expect(el.querySelector('[role="status"]').textContent).toBe("entry 2 of 3, at 5.0 µs: UFFDIO_WAKE");
    press(lanes, "PageUp");
    press(lanes, "ArrowLeft");
    expect(model.get("position")).toBe(10);
  });
  it("plays to its end and stops", () => {
    const [model] = view(12);
    const play = [...el.querySelectorAll("button")].at(-1);
    play.click();
    expect([model.get("position"), play.textContent]).toEqual([10, "stop"]);
    vi.advanceTimersByTime(2700);
    expect([model.get("position"), play.textContent]).toEqual([12, "play"]);
  });
  it("goes where it is clicked, and says when there is nothing", () => {
    const [model, end] = view(12);
    el.querySelectorAll('[role="option"]')[1].click();
    expect(model.get("position")).toBe(11);
    model.state.position = -1;
    model.becomes("_events", events());
    expect(el.querySelector('[role="status"]').textContent).toBe("Nothing has happened yet.");
    end();
    expect(model.listeners).toBe(0);
  });
});
