// @vitest-environment happy-dom
import { describe, expect, it } from "vitest";
import { listening } from "../../uffdlab/widgets/static/error_guard.js";
import { labEndedBar } from "../../uffdlab/widgets/static/lab_ended_bar.js";
import { Model } from "./model.js";
import { el, textsOf } from "./rendered.js";

describe("the bar of a lab that has ended", () => {
  it("shows the reason, and its button starts a new lab", () => {
    const model = new Model();
    el.append(labEndedBar(model, listening(model, el)));
    expect(el.textContent).toBe("");
    model.change("ended", "the machine is gone");
    expect(textsOf("p")).toEqual(["No longer live: the machine is gone"]);
    el.querySelector("button").click();
    expect(model.sent).toEqual([{ ask: "start again" }]);
    model.change("_starts", true);
    expect([textsOf("p")[0], el.querySelector("button").disabled]).toEqual(["A new lab boots …", true]);
    model.change("ended", "");
    expect(el.textContent).toBe("");
  });
});
