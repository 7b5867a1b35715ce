// @vitest-environment happy-dom
import { describe, expect, it } from "vitest";
import statusLine from "../../uffdlab/widgets/static/status_line.js";
import { Model } from "./model.js";
import { el } from "./rendered.js";

describe("a status line", () => {
  it("is read out", () => {
    const model = new Model({ text: "one" });
    const end = statusLine.render({ model, el });
    expect(el.querySelector('[role="status"]').textContent).toBe("one");
    model.becomes("text", "two");
    expect(el.textContent).toBe("two");
    end();
    expect(model.listeners).toBe(0);
  });
});
