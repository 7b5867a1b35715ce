import { describe, expect, it } from "vitest";
import { rowsFor, TimeAxis } from "../../uffdlab/widgets/static/time_axis.js";

describe("a time axis", () => {
  it("is to scale where there are events, and compressed where there are none", () => {
    const axis = new TimeAxis([30, 0, 10, 1e6, 1e6 + 20, 10], 2);
    expect([0, 10, 30].map((time) => axis.x(time))).toEqual([0, 20, 60]);
    expect(axis.x(1e6 + 20) - axis.x(1e6)).toBe(40);
    expect(axis.breaks).toEqual([{ from: 30, to: 1e6, x: 60 }]);
    expect(axis.x(1e6) - axis.x(30)).toBe(34);
    expect(axis.width).toBe(axis.x(1e6 + 20));
  });
  it("has no width without events", () => expect(new TimeAxis([], 1).width).toBe(0));
});

describe("spans", () => {
  it("that overlap in time are in different rows", () => {
    expect(rowsFor([[0, 50], [10, 20], [20, 30], [50, 60]])).toEqual([0, 1, 1, 0]);
  });
});
