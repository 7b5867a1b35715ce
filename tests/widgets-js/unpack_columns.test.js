import { describe, expect, it } from "vitest";
import { unpackColumns } from "../../uffdlab/widgets/static/unpack_columns.js";

describe("columns", () => {
  // What uffdlab.widgets._data.columns packs of the rows (1.5, "é"), (-2.25, "") and (3, "page"); a Python test has the same.
  const BYTES = "0300000000000000000000000000f83f00000000000002c000000000000008400200000002000000060000000000000" +
    "0c3a97061676500" + "00";
  const view = (hex, offset = 0) => {
    const bytes = hex.match(/../g).map((pair) => parseInt(pair, 16));
    return new DataView(new Uint8Array([...Array(offset).fill(7), ...bytes]).buffer, offset);
  };
  it("are unpacked as they were packed, at any offset", () => {
    for (const offset of [0, 3]) {
      const [numbers, texts] = unpackColumns(view(BYTES, offset), ["f8", "text"]);
      expect([...numbers]).toEqual([1.5, -2.25, 3]);
      expect(texts).toEqual(["é", "", "page"]);
    }
  });
  it("are empty without data or rows", () => {
    expect(unpackColumns(null, ["f8", "text"])).toEqual([[], []]);
    const [numbers, texts] = unpackColumns(view("00".repeat(8)), ["i4", "text"]);
    expect([numbers.length, texts]).toEqual([0, []]);
  });
});
