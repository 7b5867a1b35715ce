import { describe, expect, it } from "vitest";
import { hatchCss, hatchColour } from "../../uffdlab/widgets/static/colours_and_hatches.js";

describe("the style of a cell", () => {
  it("has a hatch for every notation of the palette", () => {
    for (const hatch of ["////", "\\\\\\\\", "xxxx", "----", "...."]) {
      expect(hatchCss({ colour: "#E69F00", hatch })).toContain("gradient");
    }
    expect(hatchCss({ colour: "#E69F00", hatch: "" })).toBe("");
  });
  it("draws hatches darker on light and lighter on dark", () => {
    expect(hatchColour("#FFFFFF")).toBe("rgb(158,158,158)");
    expect(hatchColour("#101010")).toBe("rgb(32,32,32)");
  });
});
