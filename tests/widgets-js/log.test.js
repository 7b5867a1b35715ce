import { describe, expect, it } from "vitest";
import { unpackColumns } from "../../uffdlab/widgets/static/unpack_columns.js";
import { counted, microseconds, seconds } from "../../uffdlab/widgets/static/fault_log.js";
import { duration, eventsOf, gaps, eventText } from "../../uffdlab/widgets/static/timeline_view.js";

describe("the fault log", () => {
  it("tells how long a touch waits", () => {
    expect(seconds(2.34)).toBe("2.3 s");
    expect(seconds(125)).toBe("2 min 5 s");
  });
  it("counts every message", () => {
    expect(counted([], [])).toBe("no messages yet");
    expect(counted([12000, 1], ["minor, read", "REMOVE"])).toBe("12,001 messages: 12,000 minor, read; 1 REMOVE");
  });
});

describe("columns", () => {
  // What uffdlab.widgets._data.columns packs of the rows (1.5, "é"), (-2.25, "") and (3, "page"); a Python test has the same.
  const BYTES = "0300000000000000000000000000f83f00000000000002c000000000000008400200000002000000060000000000000" +
    "0c3a97061676500" + "00";
  const view = (hex, offset = 0) => {
    const bytes = hex.match(/../g).map((pair) => parseInt(pair, 16));
    return new DataView(new Uint8Array([...Array(offset).fill(7), ...bytes]).buffer, offset);
  };
  it("come apart as they were packed, wherever they begin", () => {
    for (const offset of [0, 3]) {
      const [numbers, texts] = unpackColumns(view(BYTES, offset), ["f8", "text"]);
      expect([...numbers]).toEqual([1.5, -2.25, 3]);
      expect(texts).toEqual(["é", "", "page"]);
    }
  });
  it("are empty where nothing came or no row is", () => {
    expect(unpackColumns(null, ["f8", "text"])).toEqual([[], []]);
    const [numbers, texts] = unpackColumns(view("00".repeat(8)), ["i4", "text"]);
    expect([numbers.length, texts]).toEqual([0, []]);
  });
  it("become entries of a timeline", () => expect(eventsOf(null, ["touch"])).toEqual([]));
  it("give times with thousands", () => expect(microseconds(1234567.89)).toBe("1,234,567.9"));
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
    expect(eventText(event(1))).toBe("at 12.3 µs: UFFDIO_WAKE");
    expect(eventText(event(1, -1))).toContain("DONTWAKE: the threads still sleep");
  });
});
