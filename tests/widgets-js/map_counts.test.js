import { describe, expect, it } from "vitest";
import { MapCounts } from "../../uffdlab/widgets/static/map_counts.js";

describe("the counts of a cell", () => {
  const countsOf = (count = 1024) => {
    const codes = new Uint8Array(count);
    const mapCounts = new MapCounts(() => 3);
    mapCounts.show(codes, null);
    return [codes, mapCounts];
  };
  it("are null if all its pages have one kind", () => {
    const [, mapCounts] = countsOf();
    expect(mapCounts.of(256, 512, 256)).toEqual({ kind: 0, counts: null, faded: false });
  });
  it("are exact at every zoom level", () => {
    const [codes, mapCounts] = countsOf();
    codes.fill(1, 100, 300);
    codes[301] = 2;
    for (const per of [2, 16, 64, 128, 1024]) {
      for (let from = 0; from < codes.length; from += per) {
        const { kind, counts } = mapCounts.of(from, from + per, per);
        const expected = [0, 0, 0];
        for (const code of codes.subarray(from, from + per)) expected[code] += 1;
        if (kind < 0) expect([...counts]).toEqual(expected);
        else expect(expected[kind]).toBe(per);
      }
    }
  });
  it("are updated for pages that have changed", () => {
    const [codes, mapCounts] = countsOf();
    mapCounts.of(0, 1024, 1024);
    codes[70] = 2;
    mapCounts.show(codes, null, 70, 71);
    expect([...mapCounts.of(0, 1024, 1024).counts]).toEqual([1023, 0, 1]);
    expect(mapCounts.of(70, 71, 1).kind).toBe(2);
  });
  it("include only pages of the region", () => {
    const [codes, mapCounts] = countsOf(100);
    codes[99] = 1;
    expect([...mapCounts.of(64, 100, 64).counts]).toEqual([35, 1, 0]);
  });
  it("make it faded only if all its pages are unchanged", () => {
    const [codes, mapCounts] = countsOf(128);
    const faded = new Uint8Array(128).fill(1);
    faded[3] = 0;
    mapCounts.show(codes, faded);
    expect([mapCounts.of(0, 64, 64).faded, mapCounts.of(64, 128, 64).faded]).toEqual([false, true]);
  });
});
