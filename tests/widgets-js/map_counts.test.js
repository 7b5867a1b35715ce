import { describe, expect, it } from "vitest";
import { MapCounts } from "../../uffdlab/widgets/static/map_counts.js";

describe("the counts of a cell", () => {
  const many = (count = 1024) => {
    const codes = new Uint8Array(count);
    const mapCounts = new MapCounts(() => 3);
    mapCounts.show(codes, null);
    return [codes, mapCounts];
  };
  it("is the kind that all its pages have", () => {
    const [, mapCounts] = many();
    expect(mapCounts.of(256, 512, 256)).toEqual({ kind: 0, counts: null, faded: false });
  });
  it("are exact at every zoom level", () => {
    const [codes, mapCounts] = many();
    codes.fill(1, 100, 300);
    codes[301] = 2;
    for (const per of [2, 16, 64, 128, 1024]) {
      for (let from = 0; from < codes.length; from += per) {
        const { kind, counts } = mapCounts.of(from, from + per, per);
        const plain = [0, 0, 0];
        for (const code of codes.subarray(from, from + per)) plain[code] += 1;
        if (kind < 0) expect([...counts]).toEqual(plain);
        else expect(plain[kind]).toBe(per);
      }
    }
  });
  it("are counted again where pages have changed", () => {
    const [codes, mapCounts] = many();
    mapCounts.of(0, 1024, 1024);
    codes[70] = 2;
    mapCounts.show(codes, null, 70, 71);
    expect([...mapCounts.of(0, 1024, 1024).counts]).toEqual([1023, 0, 1]);
    expect(mapCounts.of(70, 71, 1).kind).toBe(2);
  });
  it("ends with the region", () => {
    const [codes, mapCounts] = many(100);
    codes[99] = 1;
    expect([...mapCounts.of(64, 100, 64).counts]).toEqual([35, 1, 0]);
  });
  it("is faded only if all of it is unchanged", () => {
    const [codes, mapCounts] = many(128);
    const faded = new Uint8Array(128).fill(1);
    faded[3] = 0;
    mapCounts.show(codes, faded);
    expect([mapCounts.of(0, 64, 64).faded, mapCounts.of(64, 128, 64).faded]).toEqual([false, true]);
  });
});
