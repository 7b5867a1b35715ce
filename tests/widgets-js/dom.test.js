// @vitest-environment happy-dom
import { describe, expect, it } from "vitest";
import { make, table } from "../../uffdlab/widgets/static/dom.js";

describe("elements", () => {
  it("take text as text, never as HTML", () => {
    const element = make("p", { class: "x", hidden: true, title: null, lang: false }, "<b>no</b>");
    expect(element.outerHTML).toBe('<p class="x" hidden="">&lt;b&gt;no&lt;/b&gt;</p>');
  });
  it("make a table with headers", () => {
    const element = table("bits", ["bit", "value"], [["0", "1"]]);
    expect(element.querySelector("caption").textContent).toBe("bits");
    expect(element.querySelector('th[scope="row"]').textContent).toBe("0");
    expect(element.querySelectorAll('th[scope="col"]').length).toBe(2);
  });
});
