import { describe, expect, it } from "vitest";
import { addressOf, between, codesOf, patch, rangeName, summary, countKinds } from "../../uffdlab/widgets/static/page_codes.js";

const KINDS = [{ text: "absent" }, { text: "present, writable" }, { text: "present, writable" }];

describe("codesOf", () => {
  it("reads one byte per page", () => {
    expect([...codesOf(new DataView(new Uint8Array([0, 2, 1]).buffer), 3)]).toEqual([0, 2, 1]);
  });
  it("reads two bytes per page, little-endian", () => {
    expect([...codesOf(new DataView(new Uint8Array([0, 1, 1, 0]).buffer), 2)]).toEqual([256, 1]);
  });
  it("reads two bytes per page at an odd offset", () => {
    const bytes = new Uint8Array([9, 0, 1, 1, 0]);
    expect([...codesOf(new DataView(bytes.buffer, 1), 2)]).toEqual([256, 1]);
  });
  it("returns null without data", () => {
    expect(codesOf(new DataView(new ArrayBuffer(0)), 3)).toBe(null);
    expect(codesOf(undefined, 3)).toBe(null);
  });
});

describe("patch", () => {
  it("changes only its own pages", () => {
    const view = new DataView(new Uint8Array([0, 0, 0, 0]).buffer);
    patch(view, 4, 1, new DataView(new Uint8Array([1, 2]).buffer));
    expect([...codesOf(view, 4)]).toEqual([0, 1, 2, 0]);
  });
  it("counts in pages if a page has two bytes", () => {
    const view = new DataView(new Uint8Array(8).buffer);
    patch(view, 4, 2, new DataView(new Uint8Array([0, 1]).buffer));
    expect([...codesOf(view, 4)]).toEqual([0, 0, 256, 0]);
  });
});

describe("summary", () => {
  const codes = new Uint8Array([0, 1, 2, 1]);
  it("has the count of each kind", () => expect([...countKinds(codes, 1, 4, 3)]).toEqual([0, 2, 1]));
  it("names a single state without a count", () => {
    expect(summary(codes, KINDS, 1, 4, 100)).toBe("pages 101–103: present, writable");
  });
  it("begins with the most frequent kind and merges kinds with the same text", () => {
    expect(summary(codes, KINDS, 0, 4, 0)).toBe("pages 0–3: 3 present, writable; 1 absent");
  });
});

describe("a range or an address", () => {
  it("has a name", () => {
    expect(rangeName(3, 1)).toBe("page 3");
    expect(rangeName(1024, 1024)).toBe("pages 1,024–2,047");
  });
  it("is the same if the ends are exchanged", () => {
    expect(between(5, 3)).toEqual([3, 3]);
    expect(between(3, 5)).toEqual([3, 3]);
  });
  it("is exact beyond 2^53", () => {
    expect(addressOf("0xffff800000000000", 4096, 3)).toBe("0xffff800000003000");
  });
});
