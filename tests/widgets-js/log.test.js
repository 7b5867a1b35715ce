import { describe, expect, it } from "vitest";
import { counted, seconds } from "../../uffdlab/widgets/fault_log.js";

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
