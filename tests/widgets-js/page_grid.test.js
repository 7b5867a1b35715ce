// @vitest-environment happy-dom
import { describe, expect, it, vi } from "vitest";
import pageGrid from "../../uffdlab/widgets/static/page_grid.js";
import { Model } from "./model.js";
import { el, press, texted } from "./rendered.js";

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
  it("leaves the details where they are when the pointer moves, and shows a tooltip", () => {
    const [model] = grid([0, 1]);
    cell(0).focus();
    vi.advanceTimersByTime(100);
    document.elementFromPoint = () => cell(1);
    cell(1).dispatchEvent(new MouseEvent("pointermove", { bubbles: true }));
    vi.advanceTimersByTime(100);
    const entry = { title: "PTE", raw: "0x1 in a PTE", state: "present", facts: "", rows: [] };
    model.tell("msg:custom", { id: "after 1", entry });
    expect(texted(".uffdlab-tooltip span, .uffdlab-tooltip code")).toEqual(["page 1: present", "0x1 in a PTE"]);
    expect(el.querySelector(".uffdlab-entry").textContent).toContain("page 0 at 0x10000000: absent");
    expect(model.get("cursor")).toBe(0);
    press(cell(0), "Escape");
    expect(el.querySelector(".uffdlab-tooltip").hidden).toBe(true);
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
  it("marks registered pages and those on which a touch waits", () => {
    const [model] = grid([0, 0, 0], { _registered: [[1, 2, "minor, wp"]] });
    model.becomes("_waiting", [[2, "read"]]);
    expect([0, 1, 2].map((page) => cell(page).getAttribute("aria-label"))).toEqual([
      "page 0: absent", "page 1: absent, registered for minor, wp", "page 2: absent, registered for minor, wp, a read waits",
    ]);
    expect(texted(".uffdlab-legend li").slice(1)).toEqual([" registered for minor, wp: 2", " a touch waits: read of page 2"]);
    model.becomes("_waiting", []);
    expect(cell(2).classList.contains("uffdlab-waits")).toBe(false);
  });
  it("explains who has seen the pages", () => {
    const [model] = grid([0]);
    const meta = { ...model.get("_meta"), title: "region-1, seen by scan", witness: "scan", witness_about: "an ioctl said so" };
    model.becomes("_meta", meta);
    expect(el.querySelector(".uffdlab-title").textContent).toBe("region-1, seen by scan");
    expect([el.querySelector("abbr").textContent, el.querySelector("abbr").title]).toEqual(["seen by scan", "an ioctl said so"]);
  });
  it("leaves no listener", () => {
    const [model, end] = grid([0]);
    end();
    expect(model.listeners).toBe(0);
  });
});
