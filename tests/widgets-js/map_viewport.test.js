import { describe, expect, it } from "vitest";
import { COLUMNS, MapViewport, widest } from "../../uffdlab/widgets/static/map_viewport.js";

describe("the viewport of a map", () => {
  it("shows all pages at first, with a power of two in each cell", () => {
    expect(widest(1 << 20)).toBe(512);
    expect(widest(2049)).toBe(2);
  });
  it("zooms in to one page per cell and back to all pages", () => {
    const view = new MapViewport(1 << 20);
    view.zoom(4096, 700000);
    expect(view.pagesPerCell).toBe(1);
    const row = Math.floor(700000 / COLUMNS);
    expect(row).toBeGreaterThanOrEqual(view.top);
    expect(row).toBeLessThan(view.top + view.screen);
    view.zoom(1 / 4096);
    expect([view.pagesPerCell, view.top]).toEqual([512, 0]);
  });
  it("keeps the cursor visible and in the region", () => {
    const view = new MapViewport(1 << 20);
    view.zoom(1024, 0);
    view.move(1 << 21);
    expect(view.cursor).toBe((1 << 20) - 1);
    expect(view.rows - view.top).toBe(view.screen);
    view.move(-(1 << 21));
    expect([view.cursor, view.top]).toEqual([0, 0]);
  });
  it("has no more rows than there are to show", () => {
    expect([2049, 3000, 4096, 1 << 20].map((count) => new MapViewport(count).screen)).toEqual([17, 24, 32, 32]);
  });
  it("returns the range of pages that are shown", () => {
    const view = new MapViewport(5000);
    expect(view.shown).toEqual([0, 5000]);
    view.zoom(4, 0);
    expect([view.pagesPerCell, view.shown]).toEqual([1, [0, 1280]]);
    view.pan(1000);
    expect(view.shown[1]).toBe(5000);
  });
  it("ends the last cell at the end of the region", () => {
    const view = new MapViewport(3000);
    expect(view.cell(2999)).toEqual([2998, 3000]);
  });
});
