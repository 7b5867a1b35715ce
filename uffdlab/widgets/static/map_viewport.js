// The visible part of the map: the number of pages for each square, the row at the top, the cursor.

export const COLUMNS = 64;
export const ROWS = 32;

// Return the smallest number of pages for each cell with which all pages fit.
export function widest(count) {
  let pagesPerCell = 1;
  while (Math.ceil(count / pagesPerCell) > COLUMNS * ROWS) pagesPerCell *= 2;
  return pagesPerCell;
}

// One viewport, shared by all panes of a grid.
export class MapViewport {
  constructor(count) {
    this.count = count;
    this.widest = widest(count);
    this.pagesPerCell = this.widest;
    this.screen = Math.min(ROWS, this.rows); // rows that are shown
    this.top = 0;
    this.cursor = 0;
    this.watchers = new Set();
  }

  get rows() {
    return Math.ceil(this.count / this.pagesPerCell / COLUMNS);
  }

  changed() {
    this.top = Math.max(0, Math.min(this.top, this.rows - this.screen));
    this.cursor = Math.max(0, Math.min(this.cursor, this.count - 1));
    for (const watcher of this.watchers) watcher();
  }

  // Zoom in (factor above 1) or out by a power of two; keep the page `at` in its row on the screen.
  zoom(factor, at = this.cursor) {
    const row = Math.floor(at / this.pagesPerCell / COLUMNS) - this.top;
    this.pagesPerCell = Math.max(1, Math.min(this.widest, this.pagesPerCell / factor));
    this.top = Math.floor(at / this.pagesPerCell / COLUMNS) - row;
    this.changed();
  }

  pan(rows) {
    this.top += rows;
    this.changed();
  }

  move(pages) {
    this.cursor = Math.max(0, Math.min(this.count - 1, this.cursor + pages));
    const row = Math.floor(this.cursor / this.pagesPerCell / COLUMNS);
    if (row < this.top) this.top = row;
    if (row >= this.top + this.screen) this.top = row - this.screen + 1;
    this.changed();
  }

  // The visible range of page indices: [from, to).
  get shown() {
    const row = COLUMNS * this.pagesPerCell;
    const top = Math.floor(this.top);
    return [top * row, Math.min(this.count, (top + this.screen) * row)];
  }

  // Return the range of page indices of the cell with `index`: [from, to).
  cell(index) {
    const from = Math.floor(index / this.pagesPerCell) * this.pagesPerCell;
    return [from, Math.min(this.count, from + this.pagesPerCell)];
  }
}
