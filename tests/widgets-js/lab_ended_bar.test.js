// @vitest-environment happy-dom
import { describe, expect, it } from "vitest";
import { listening } from "../../uffdlab/widgets/static/error_guard.js";
import { labEndedBar } from "../../uffdlab/widgets/static/lab_ended_bar.js";
import { Model } from "./model.js";
import { el, texted } from "./rendered.js";

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
