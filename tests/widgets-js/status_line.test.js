// @vitest-environment happy-dom
import { describe, expect, it } from "vitest";
import statusLine from "../../uffdlab/widgets/static/status_line.js";
import { Model } from "./model.js";
import { el } from "./rendered.js";

describe("a status line", () => {
  it("has the role status, so that a screen reader reads it", () => {
    const model = new Model({ text: "one" });
    const end = statusLine.render({ model, el });
    expect(el.querySelector('[role="status"]').textContent).toBe("one");
    model.change("text", "two");
    expect(el.textContent).toBe("two");
    end();
    expect(model.listeners).toBe(0);
  });
});
