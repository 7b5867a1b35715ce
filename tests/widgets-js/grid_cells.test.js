import { describe, expect, it } from "vitest";
import { columnsFor, cellAfterKey } from "../../uffdlab/widgets/static/grid_cells.js";

const key = (name, ctrlKey = false) => ({ key: name, ctrlKey });

describe("cells", () => {
  it("are in as many columns as in the figures", () => {
    expect([5, 64, 65, 256, 257, 2048].map(columnsFor)).toEqual([5, 8, 16, 16, 32, 32]);
  });
  it("are reached by keys, which stay inside the grid", () => {
    expect(cellAfterKey(0, key("ArrowLeft"), 64, 8)).toBe(0);
    expect(cellAfterKey(7, key("ArrowRight"), 64, 8)).toBe(8);
    expect(cellAfterKey(3, key("ArrowUp"), 64, 8)).toBe(3);
    expect(cellAfterKey(60, key("ArrowDown"), 64, 8)).toBe(60);
    expect(cellAfterKey(19, key("Home"), 64, 8)).toBe(16);
    expect(cellAfterKey(19, key("End"), 64, 8)).toBe(23);
    expect(cellAfterKey(19, key("Home", true), 64, 8)).toBe(0);
    expect(cellAfterKey(19, key("End", true), 64, 8)).toBe(63);
    expect(cellAfterKey(19, key("x"), 64, 8)).toBe(null);
  });
});
