import { describe, expect, it } from "vitest";
import { withSelectionFrame, withGridLines, lighten, pixel, copySquare, stripeWidths, stripedSquare } from "../../uffdlab/widgets/static/map_pixels.js";

const RED = pixel("#ff0000");
const BLUE = pixel("#0000ff");
const LINE = pixel("#7a7a7a");
const BLACK = pixel("#000000");

describe("pixels", () => {
  it("have red in the lowest byte and are opaque", () => {
    expect(pixel("#0072B2")).toBe(0xffb27200);
    expect(pixel("#FFFFFF")).toBe(0xffffffff);
  });
  it("are lightened towards white", () => {
    expect(lighten(BLACK)).toBe(pixel("#bfbfbf"));
    expect(lighten(pixel("#ffffff"))).toBe(pixel("#ffffff"));
  });
});

describe("stripes", () => {
  it("have a width in proportion to their count and fill the square", () => expect(stripeWidths([256, 0, 768], 16)).toEqual([4, 0, 12]));
  it("show one page among a thousand", () => expect(stripeWidths([1023, 1], 15)).toEqual([14, 1]));
  it("accept typed arrays", () => expect([...stripeWidths(new Uint32Array([1, 1]), 4)]).toEqual([2, 2]));
  it("never exceed the width of the square", () => {
    for (const kinds of [1, 3, 15, 16, 40]) {
      const counts = Array.from({ length: kinds }, (_, index) => index + 1);
      const widths = stripeWidths(counts, 15);
      expect(widths.reduce((sum, width) => sum + width)).toBe(15);
      expect(Math.min(...widths)).toBeGreaterThanOrEqual(0);
      expect(widths.at(-1)).toBeGreaterThan(0);
    }
  });
  it("have a dot in the centre and a line to the right and below", () => {
    const square = stripedSquare([1, 1], [RED, BLUE], 17, 1, LINE);
    expect([square[0], square[15], square[16]]).toEqual([RED, BLUE, LINE]);
    expect([...square.slice(16 * 17)]).toEqual(new Array(17).fill(LINE));
    expect(square[7 * 17 + 7]).toBe(BLACK);
  });
});

describe("squares", () => {
  it("have lines between them", () => {
    expect([...withGridLines(new Uint32Array([RED, RED, RED, RED]), 3, 1, LINE)]).toEqual([
      RED, RED, LINE, RED, RED, LINE, LINE, LINE, LINE,
    ]);
  });
  it("get a frame when they are selected, and the original is unchanged", () => {
    const square = new Uint32Array(16 * 16).fill(RED);
    const framed = withSelectionFrame(square, 16, 1);
    expect([framed[0], framed[1], framed[8 * 16 + 8]]).toEqual([BLACK, BLACK, RED]);
    expect(framed[2 * 16 + 2]).toBe(pixel("#ffffff"));
    expect(square[0]).toBe(RED);
  });
  it("are copied to a position, clipped above and below", () => {
    const square = new Uint32Array([1, 2, 3, 4]);
    const pixels = new Uint32Array(12);
    copySquare(pixels, 4, square, 2, 2, -1, 0, 3);
    expect([...pixels]).toEqual([0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
    copySquare(pixels, 4, square, 2, 0, 2, 0, 3);
    expect([...pixels.slice(8)]).toEqual([1, 2, 0, 0]);
  });
});
