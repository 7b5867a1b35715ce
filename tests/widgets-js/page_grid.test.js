// @vitest-environment happy-dom
import { describe, expect, it, vi } from "vitest";
import pageGrid from "../../uffdlab/widgets/static/page_grid.js";
import { Model } from "./model.js";
import { el, press, textsOf } from "./rendered.js";

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
  const cell = (page, pane = 0) => [...el.querySelectorAll('[role="grid"]')][pane].querySelectorAll('[role="gridcell"]')[page];

  it("labels every page and counts each kind", () => {
    grid([0, 1, 1, 0]);
    expect(cell(1).getAttribute("aria-label")).toBe("page 1: present, uffd-wp");
    expect(textsOf(".uffdlab-legend li").map((text) => text.trim())).toEqual(["· absent: 2", "U present, uffd-wp: 2"]);
    expect([...el.querySelectorAll('[role="gridcell"][tabindex="0"]')].length).toBe(1);
  });
  it("moves the cursor and selects by keyboard, with cursor and selection in one message", () => {
    const [model] = grid(new Array(64).fill(0));
    cell(0).focus();
    press(cell(0), "ArrowDown");
    expect(document.activeElement).toBe(cell(8));
    press(cell(8), "ArrowRight", { shiftKey: true });
    expect([model.get("selection"), model.get("cursor")]).toEqual([[8, 2], 9]);
    expect(cell(9).getAttribute("aria-selected")).toBe("true");
    expect(textsOf(".uffdlab-selection")).toEqual(["selected: pages 8–9"]);
    press(cell(9), "Escape");
    expect(model.get("selection")).toEqual([]);
    press(cell(9), "a", { ctrlKey: true });
    expect(model.get("selection")).toEqual([0, 64]);
  });
  it("requests the entry under the cursor once, and caches it", () => {
    const [model] = grid([0, 1]);
    cell(1).focus();
    vi.advanceTimersByTime(100);
    const requests = model.sent.filter((message) => message.ask === "entry");
    expect(requests).toEqual([{ ask: "entry", page: 1, which: "after", id: "after 1" }]);
    const entry = { title: "PTE", state: "present", facts: "Address 0x1.", rows: [["10", "uffd-wp", "1", "protected"]] };
    model.emit("msg:custom", { id: "after 1", entry });
    expect(textsOf(".uffdlab-entry td")).toEqual(["uffd-wp", "1", "protected"]);
    cell(0).focus();
    cell(1).focus();
    vi.advanceTimersByTime(100);
    expect(model.sent.filter((message) => message.page === 1).length).toBe(1);
  });
  it("shows a tooltip at the pointer, and keeps the details of the page under the cursor", () => {
    const [model] = grid([0, 1]);
    cell(0).focus();
    vi.advanceTimersByTime(100);
    document.elementFromPoint = () => cell(1);
    cell(1).dispatchEvent(new MouseEvent("pointermove", { bubbles: true }));
    vi.advanceTimersByTime(100);
    const entry = { title: "PTE", raw: "0x1 in a PTE", state: "present", facts: "", rows: [] };
    model.emit("msg:custom", { id: "after 1", entry });
    expect(textsOf(".uffdlab-tooltip span, .uffdlab-tooltip code")).toEqual(["page 1: present", "0x1 in a PTE"]);
    expect(el.querySelector(".uffdlab-entry").textContent).toContain("page 0 at 0x10000000: absent");
    expect(model.get("cursor")).toBe(0);
    press(cell(0), "Escape");
    expect(el.querySelector(".uffdlab-tooltip").hidden).toBe(true);
  });
  it("updates only the pages of a changed range", () => {
    const [model] = grid([0, 0, 0, 0]);
    model.emit("msg:custom", { patch: 1 }, [view([1, 1])]);
    expect([0, 1, 2, 3].map((page) => cell(page).textContent)).toEqual(["·", "U", "U", "·"]);
  });
  it("shows a huge page as one cell over all its pages", () => {
    grid([2, 2, 2, 2, 2, 2, 2, 2]);
    expect([0, 1, 4, 5].map((page) => cell(page).textContent)).toEqual(["H", "", "H", ""]);
    expect(cell(1).classList.contains("uffdlab-joined")).toBe(true);
  });
  it("shows before and after, or only the changed pages", () => {
    const [model] = grid([1, 0], { _before: view([0, 0]) });
    expect([cell(0, 0).textContent, cell(0, 1).textContent]).toEqual(["·", "U"]);
    model.change("mode", "changed");
    expect(cell(1).getAttribute("aria-label")).toBe("page 1: absent, unchanged");
    expect(cell(0).classList.contains("uffdlab-faded")).toBe(false);
  });
  it("flickers until hold still is pressed", () => {
    const [model] = grid([1, 0], { _before: view([0, 0]) });
    model.change("mode", "flicker");
    vi.advanceTimersByTime(900);
    expect(cell(0).textContent).toBe("·");
    vi.advanceTimersByTime(900);
    expect(cell(0).textContent).toBe("U");
    el.querySelector("button[aria-pressed]").click();
    vi.advanceTimersByTime(5000);
    expect(cell(0).textContent).toBe("U");
  });
  it("has no choice of mode in a comparison of several grids", () => {
    grid([1, 0], { _before: view([0, 0]), _chooses: false, mode: "changed" });
    expect(el.querySelector("input")).toBe(null);
  });
  it("marks registered pages and pages on which a touch waits", () => {
    const [model] = grid([0, 0, 0], { _registered: [[1, 2, "minor, wp"]] });
    model.change("_waiting", [[2, "read"]]);
    expect([0, 1, 2].map((page) => cell(page).getAttribute("aria-label"))).toEqual([
      "page 0: absent", "page 1: absent, registered for minor, wp", "page 2: absent, registered for minor, wp, a read waits",
    ]);
    expect(textsOf(".uffdlab-legend li").slice(1)).toEqual([" registered for minor, wp: 2", " a touch waits: read of page 2"]);
    model.change("_waiting", []);
    expect(cell(2).classList.contains("uffdlab-waits")).toBe(false);
  });
  it("says of a moment in the past that its marks are not shown", () => {
    const [model] = grid([0], { _registered: [[0, 1, "minor"]] });
    model.change("_registered", []);
    expect(el.querySelector(".uffdlab-legend").textContent).not.toContain("not shown");
    model.change("_past", true);
    expect(textsOf(".uffdlab-legend li").at(-1)).toBe("registered then, and waiting then: not shown");
    model.change("_past", false);
    expect(textsOf(".uffdlab-legend li").length).toBe(1);
  });
  it("names and explains the witness", () => {
    const [model] = grid([0]);
    const meta = { ...model.get("_meta"), title: "region-1, seen by scan", witness: "scan", witness_about: "an ioctl said so" };
    model.change("_meta", meta);
    expect(el.querySelector(".uffdlab-title").textContent).toBe("region-1, seen by scan");
    expect([el.querySelector("abbr").textContent, el.querySelector("abbr").title]).toEqual(["seen by scan", "an ioctl said so"]);
  });
  it("leaves no listener", () => {
    const [model, end] = grid([0]);
    end();
    expect(model.listeners).toBe(0);
  });
});
