// @vitest-environment happy-dom
import { describe, expect, it, vi } from "vitest";
import faultLog, { counted, microseconds, seconds } from "../../uffdlab/widgets/static/fault_log.js";
import { Model, packed, texts } from "./model.js";
import { el, textsOf } from "./rendered.js";

describe("the texts of a fault log", () => {
  it("show how long a touch waits", () => {
    expect(seconds(2.34)).toBe("2.3 s");
    expect(seconds(125)).toBe("2 min 5 s");
  });
  it("count every message", () => {
    expect(counted([], [])).toBe("no messages yet");
    expect(counted([12000, 1], ["minor, read", "REMOVE"])).toBe("12,001 messages: 12,000 minor, read; 1 REMOVE");
  });
  it("show times with thousands separators", () => expect(microseconds(1234567.89)).toBe("1,234,567.9"));
});

describe("a fault log", () => {
  const log = (...ids) => {
    const labels = texts(...ids.map((id) => `write to page ${id}`));
    const kinds = texts(...ids.map(() => "minor, write"));
    return packed(ids.length, new Float64Array(ids), new Float64Array(ids.map(() => 1)), labels, labels, kinds);
  };
  const state = (...ids) => ({
    _actions: ["continue", "wake"], _about: ["UFFDIO_CONTINUE: resolves a minor fault", "UFFDIO_WAKE"], _waiting: log(...ids),
    _rows: packed(1, new Float64Array([1234.5]), texts("Fault(page=3)")), _counts: packed(1, new Float64Array([7]), texts("minor, write")),
  });
  it("shows the waiting touches, their age, and the messages", () => {
    const model = new Model(state(3));
    faultLog.render({ model, el });
    expect(el.textContent).toContain("write to page 3 (minor, write) waits for 1.0 s");
    expect(el.textContent).toContain("7 messages: 7 minor, write");
    expect(textsOf("tbody th")).toEqual(["1,234.5"]);
    expect(el.querySelector("button").title).toBe("UFFDIO_CONTINUE: resolves a minor fault");
    vi.advanceTimersByTime(2000);
    expect(el.textContent).toContain("waits for 3.0 s");
  });
  it("resolves the selected touch, also when other touches begin and end", () => {
    const model = new Model(state(3, 5));
    faultLog.render({ model, el });
    const second = el.querySelectorAll('input[type="radio"]')[1];
    second.checked = true;
    second.dispatchEvent(new Event("change", { bubbles: true }));
    model.change("_waiting", log(5, 9));
    el.querySelectorAll("button")[0].click();
    expect(model.sent).toEqual([{ resolve: "continue", touch: 5, data: "" }]);
  });
  it("keeps the focus on a button when the last touch ends", () => {
    const model = new Model(state(3));
    const end = faultLog.render({ model, el });
    const [button] = el.querySelectorAll("button");
    button.focus();
    model.change("_waiting", log());
    expect(button.getAttribute("aria-disabled")).toBe("true");
    expect(document.activeElement).toBe(button);
    expect(el.textContent).toContain("No touch waits.");
    end();
    expect(model.listeners).toBe(0);
  });
});
