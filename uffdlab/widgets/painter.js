import { make } from "./elements.js";
import { tile } from "./looks.js";
import { tally } from "./pages.js";
import { COLUMNS, ROWS } from "./view.js";

// Paints the cells of a map onto its canvas; a cell stands for one page, or for many.

const TILES = 256;
const KEPT = 20000;

export class Painter {
  constructor(host, view) {
    this.host = host;
    this.view = view;
    this.side = 12;
    this.tiles = new Map();
    this.seen = new Map();
    this.frames = 0;
    this.selection = [];
    this.canvas = make("canvas", { class: "uffdlab-canvas", "aria-hidden": "true" });
    this.brush = this.canvas.getContext("2d", { alpha: false });
  }

  show(codes, faded) {
    this.codes = codes;
    this.faded = faded;
    this.seen.clear();
  }

  // Fit into so many CSS pixels; tells whether that changed anything.
  resize(room) {
    const width = Math.max(320, Math.min(COLUMNS * 16, room));
    const side = Math.floor(width / COLUMNS);
    const scale = window.devicePixelRatio || 1;
    if (side === this.side && this.canvas.width === Math.round(side * COLUMNS * scale)) return false;
    this.side = side;
    this.tiles.clear();
    this.canvas.width = Math.round(side * COLUMNS * scale);
    this.canvas.height = Math.round(side * ROWS * scale);
    this.canvas.style.width = `${side * COLUMNS}px`;
    this.canvas.style.height = `${side * ROWS}px`;
    return true;
  }

  stamp(kind) {
    if (this.tiles.size > TILES) this.tiles.clear();
    let stamp = this.tiles.get(kind);
    if (!stamp) {
      stamp = tile(kind < 0 ? this.host.mixed : this.host.kinds[kind], this.side - 1, window.devicePixelRatio || 1);
      this.tiles.set(kind, stamp);
    }
    return stamp;
  }

  paint() {
    const { brush, side, view } = this;
    const scale = window.devicePixelRatio || 1;
    brush.setTransform(scale, 0, 0, scale, 0, 0);
    brush.fillStyle = "#7a7a7a";
    brush.fillRect(0, 0, side * COLUMNS, side * ROWS);
    const top = Math.floor(view.top);
    for (let row = top; row <= top + ROWS; row += 1) {
      for (let column = 0; column < COLUMNS; column += 1) {
        const from = (row * COLUMNS + column) * view.per;
        if (from >= view.count) break;
        this.paintCell(from, Math.min(view.count, from + view.per), column * side, (row - view.top) * side);
      }
    }
    const used = view.rows - view.top;
    if (used < ROWS) {
      const left = ((view.count / view.per) % COLUMNS) * side;
      brush.fillStyle = "#ffffff";
      brush.fillRect(0, used * side, side * COLUMNS, (ROWS - used) * side);
      if (left) brush.fillRect(left, (used - 1) * side, side * COLUMNS - left, side);
    }
    this.paintCursor();
    this.frames += 1;
  }

  paintCell(from, to, x, y) {
    const { brush, side } = this;
    const size = side - 1;
    const held = this.held(from, to);
    if (typeof held === "number") brush.drawImage(this.stamp(held), x, y, size, size);
    else this.paintMixed(held, to - from, x, y, size);
    if (this.faded && this.unchanged(from, to)) {
      brush.fillStyle = "rgba(255,255,255,0.75)";
      brush.fillRect(x, y, size, size);
    }
    if (this.selected(from, to)) {
      brush.strokeStyle = "#000000";
      brush.lineWidth = 2;
      brush.strokeRect(x + 1, y + 1, size - 2, size - 2);
    }
  }

  // What a cell holds: the one kind of all its pages, or how many there are of each; kept until the pages change.
  held(from, to) {
    const { codes, seen, view, host } = this;
    const key = from * 2 * view.widest + view.per;
    let held = seen.get(key);
    if (held === undefined) {
      const kind = codes[from];
      let at = from + 1;
      while (at < to && codes[at] === kind) at += 1;
      held = at === to ? kind : tally(codes, from, to, host.kinds.length);
      if (seen.size > KEPT) seen.clear();
      seen.set(key, held);
    }
    return held;
  }

  // Pages in several states: a stripe for each, as wide as its share.
  paintMixed(counts, pages, x, y, size) {
    const { brush, host } = this;
    let left = x;
    counts.forEach((count, each) => {
      if (!count) return;
      const width = (count / pages) * size;
      brush.fillStyle = host.kinds[each].colour;
      brush.fillRect(left, y, width, size);
      left += width;
    });
    brush.fillStyle = "#000000";
    brush.fillRect(x + size / 2 - 1, y + size / 2 - 1, 3, 3);
  }

  unchanged(from, to) {
    for (let at = from; at < to; at += 1) if (!this.faded[at]) return false;
    return true;
  }

  paintCursor() {
    const { brush, side, view } = this;
    const at = Math.floor(view.cursor / view.per);
    const x = (at % COLUMNS) * side;
    const y = (Math.floor(at / COLUMNS) - view.top) * side;
    brush.lineWidth = 2;
    brush.strokeStyle = "#ffffff";
    brush.strokeRect(x - 1, y - 1, side + 1, side + 1);
    brush.strokeStyle = "#000000";
    brush.setLineDash([3, 2]);
    brush.strokeRect(x - 1, y - 1, side + 1, side + 1);
    brush.setLineDash([]);
  }

  selected(from, to) {
    const [first = 0, count = 0] = this.selection;
    return count > 0 && from + this.host.first < first + count && to + this.host.first > first;
  }
}
