// @vitest-environment happy-dom
import { describe, expect, it, vi } from "vitest";
import codeBox from "../../uffdlab/widgets/static/code_box.js";
import { Model } from "./model.js";
import { el } from "./rendered.js";

describe("a box of code", () => {
  it("copies its text to the clipboard", async () => {
    const model = new Model({ text: "err(1);", label: "as C" });
    const copied = [];
    vi.stubGlobal("navigator", { clipboard: { writeText: async (text) => copied.push(text) } });
    window.isSecureContext = true;
    codeBox.render({ model, el });
    expect(el.querySelector("pre").getAttribute("aria-label")).toBe("as C");
    el.querySelector("button").click();
    await vi.waitFor(() => expect(el.querySelector('[role="status"]').textContent).toBe(" copied"));
    expect(copied).toEqual(["err(1);"]);
    model.change("text", "other");
    expect([el.querySelector("code").textContent, el.querySelector('[role="status"]').textContent]).toEqual(["other", ""]);
    vi.unstubAllGlobals();
  });
});
