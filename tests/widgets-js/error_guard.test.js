// @vitest-environment happy-dom
import { describe, expect, it } from "vitest";
import { guarded, listening } from "../../uffdlab/widgets/static/error_guard.js";
import { Model } from "./model.js";
import { el } from "./rendered.js";

describe("an error", () => {
  it("is shown in the widget and sent to Python", () => {
    const model = new Model();
    guarded(model, el, () => null.nothing)();
    expect(el.querySelector('[role="alert"]').textContent).toContain("An error in this widget's JavaScript");
    expect(model.sent[0].error).toMatch(/null/);
  });
  it("of a rejected promise is sent to Python too", async () => {
    const model = new Model();
    await guarded(model, el, () => Promise.reject(new Error("later")))();
    expect(model.sent[0].error).toContain("later");
  });
  it("in a listener does not stop the other listeners", () => {
    const model = new Model();
    const listen = listening(model, el);
    const received = [];
    listen.model("change:x", () => null.nothing);
    listen.model("change:x", () => received.push(1));
    model.change("x", 1);
    expect(received).toEqual([1]);
    listen.end();
    expect(model.listeners).toBe(0);
  });
});
