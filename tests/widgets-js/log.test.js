import { describe, expect, it } from "vitest";
import { counted, seconds } from "../../uffdlab/widgets/fault_log.js";
import { duration, gaps, told } from "../../uffdlab/widgets/timeline_view.js";

describe("the fault log", () => {
  it("tells how long a touch waits", () => {
    expect(seconds(2.34)).toBe("2.3 s");
    expect(seconds(125)).toBe("2 min 5 s");
  });
  it("counts every message", () => {
    expect(counted({})).toBe("no messages yet");
    expect(counted({ "minor, read": 12000, REMOVE: 1 })).toBe("12,001 messages: 12,000 minor, read, 1 REMOVE");
  });
});

describe("the timeline", () => {
  const event = (n, gap = null) => ({ n, gap, at: 12.34, took: 0, text: "UFFDIO_WAKE", change: "" });
  it("gives times a fitting unit", () => {
    expect([12.34, 4560, 1.2e6].map(duration)).toEqual(["12.3 µs", "4.56 ms", "1.20 s"]);
  });
  it("draws a gap up to who wakes, or to the end", () => {
    expect(gaps([event(7, 9), event(8), event(9), event(10, -1)])).toEqual([[0, 2], [3, 4]]);
  });
  it("says what happened and who sleeps", () => {
    expect(told(event(1))).toBe("at 12.3 µs: UFFDIO_WAKE");
    expect(told(event(1, -1))).toContain("nobody has woken what waits");
  });
});
