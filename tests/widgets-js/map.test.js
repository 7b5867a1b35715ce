import { describe, expect, it } from "vitest";
import { CellCounts } from "../../uffdlab/widgets/static/cell_counts.js";
import { chosen, lined, pale, pixel, put, shares, striped } from "../../uffdlab/widgets/static/pixels.js";

const RED = pixel("#ff0000");
const BLUE = pixel("#0000ff");
const LINE = pixel("#7a7a7a");
const BLACK = pixel("#000000");

describe("pixels", () => {
  it("have red lowest and are opaque", () => {
    expect(pixel("#0072B2")).toBe(0xffb27200);
    expect(pixel("#FFFFFF")).toBe(0xffffffff);
  });
  it("get pale towards white", () => {
    expect(pale(BLACK)).toBe(pixel("#bfbfbf"));
    expect(pale(pixel("#ffffff"))).toBe(pixel("#ffffff"));
  });
});

describe("stripes", () => {
  it("are as wide as their share and fill the square", () => expect(shares([256, 0, 768], 16)).toEqual([4, 0, 12]));
  it("show also one page of a thousand", () => expect(shares([1023, 1], 15)).toEqual([14, 1]));
  it("take typed arrays", () => expect([...shares(new Uint32Array([1, 1]), 4)]).toEqual([2, 2]));
  it("never take more room than there is", () => {
    for (const kinds of [1, 3, 15, 16, 40]) {
      const counts = Array.from({ length: kinds }, (_, at) => at + 1);
      const widths = shares(counts, 15);
      expect(widths.reduce((sum, each) => sum + each)).toBe(15);
      expect(Math.min(...widths)).toBeGreaterThanOrEqual(0);
      expect(widths.at(-1)).toBeGreaterThan(0);
    }
  });
  it("have a dot in the middle and a line to the right and below", () => {
    const square = striped([1, 1], [RED, BLUE], 17, 1, LINE);
    expect([square[0], square[15], square[16]]).toEqual([RED, BLUE, LINE]);
    expect([...square.slice(16 * 17)]).toEqual(new Array(17).fill(LINE));
    expect(square[7 * 17 + 7]).toBe(BLACK);
  });
});

describe("squares", () => {
  it("get lines between them", () => {
    expect([...lined(new Uint32Array([RED, RED, RED, RED]), 3, 1, LINE)]).toEqual([
      RED, RED, LINE, RED, RED, LINE, LINE, LINE, LINE,
    ]);
  });
  it("get a frame when they are chosen, and stay as they were", () => {
    const square = new Uint32Array(16 * 16).fill(RED);
    const framed = chosen(square, 16, 1);
    expect([framed[0], framed[1], framed[8 * 16 + 8]]).toEqual([BLACK, BLACK, RED]);
    expect(framed[2 * 16 + 2]).toBe(pixel("#ffffff"));
    expect(square[0]).toBe(RED);
  });
  it("are put where they belong, cut off above and below", () => {
    const square = new Uint32Array([1, 2, 3, 4]);
    const pixels = new Uint32Array(12);
    put(pixels, 4, square, 2, 2, -1, 0, 3);
    expect([...pixels]).toEqual([0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
    put(pixels, 4, square, 2, 0, 2, 0, 3);
    expect([...pixels.slice(8)]).toEqual([1, 2, 0, 0]);
  });
});

describe("what cells hold", () => {
  const many = (count = 1024) => {
    const codes = new Uint8Array(count);
    const cellCounts = new CellCounts(() => 3);
    cellCounts.show(codes, null);
    return [codes, cellCounts];
  };
  it("is the one kind of all pages", () => {
    const [, cellCounts] = many();
    expect(cellCounts.of(256, 512, 256)).toEqual({ kind: 0, counts: null, faded: false });
  });
  it("is how many there are of each, exactly, at every level", () => {
    const [codes, cellCounts] = many();
    codes.fill(1, 100, 300);
    codes[301] = 2;
    for (const per of [2, 16, 64, 128, 1024]) {
      for (let from = 0; from < codes.length; from += per) {
        const { kind, counts } = cellCounts.of(from, from + per, per);
        const plain = [0, 0, 0];
        for (const code of codes.subarray(from, from + per)) plain[code] += 1;
        if (kind < 0) expect([...counts]).toEqual(plain);
        else expect(plain[kind]).toBe(per);
      }
    }
  });
  it("is looked at anew where pages have changed", () => {
    const [codes, cellCounts] = many();
    cellCounts.of(0, 1024, 1024);
    codes[70] = 2;
    cellCounts.show(codes, null, 70, 71);
    expect([...cellCounts.of(0, 1024, 1024).counts]).toEqual([1023, 0, 1]);
    expect(cellCounts.of(70, 71, 1).kind).toBe(2);
  });
  it("ends with the region", () => {
    const [codes, cellCounts] = many(100);
    codes[99] = 1;
    expect([...cellCounts.of(64, 100, 64).counts]).toEqual([35, 1, 0]);
  });
  it("is faded only if all of it is unchanged", () => {
    const [codes, cellCounts] = many(128);
    const faded = new Uint8Array(128).fill(1);
    faded[3] = 0;
    cellCounts.show(codes, faded);
    expect([cellCounts.of(0, 64, 64).faded, cellCounts.of(64, 128, 64).faded]).toEqual([false, true]);
  });
});
