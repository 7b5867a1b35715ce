// @vitest-environment happy-dom
import { describe, expect, it, vi } from "vitest";
import codeBox from "../../uffdlab/widgets/static/code_box.js";
import { Model } from "./model.js";
import { el } from "./rendered.js";

describe("a box of code", () => {
  it("can be copied", async () => {
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
