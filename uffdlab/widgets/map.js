import { make } from "./elements.js";
import { tile } from "./looks.js";
import { between, summary, tally } from "./pages.js";

// A pane of more pages than can be elements: a canvas whose cells stand for 2^n pages each, from all of them down to one.
// For assistive technology there is one real cell, that of the cursor, which says what its range holds.

export const COLUMNS = 64;
const ROWS = 24;
const TILES = 256;
const KEPT = 20000;

// The fewest pages a cell must stand for, so that all fit.
export function widest(count) {
  let per = 1;
  while (Math.ceil(count / per) > COLUMNS * ROWS) per *= 2;
  return per;
}

// One view, shared by all panes of a grid: what a cell stands for, the row at the top, where the cursor is.
export class View {
  constructor(count) {
    this.count = count;
    this.widest = widest(count);
    this.per = this.widest;
    this.top = 0;
    this.cursor = 0;
    this.watchers = new Set();
  }

  get rows() {
    return Math.ceil(this.count / this.per / COLUMNS);
  }

  changed() {
    this.top = Math.max(0, Math.min(this.top, this.rows - ROWS));
    this.cursor = Math.max(0, Math.min(this.cursor, this.count - 1));
    for (const watcher of this.watchers) watcher();
  }

  // Zoom by a power of two (above 1: nearer), keeping the page `at` in its row on the screen.
  zoom(factor, at = this.cursor) {
    const row = Math.floor(at / this.per / COLUMNS) - this.top;
    this.per = Math.max(1, Math.min(this.widest, this.per / factor));
    this.top = Math.floor(at / this.per / COLUMNS) - row;
    this.changed();
  }

  pan(rows) {
    this.top += rows;
    this.changed();
  }

  move(pages) {
    this.cursor = Math.max(0, Math.min(this.count - 1, this.cursor + pages));
    const row = Math.floor(this.cursor / this.per / COLUMNS);
    if (row < this.top) this.top = row;
    if (row >= this.top + ROWS) this.top = row - ROWS + 1;
    this.changed();
  }

  // The range of page indices of the cell in which `index` lies: [from, to).
  cell(index) {
    const from = Math.floor(index / this.per) * this.per;
    return [from, Math.min(this.count, from + this.per)];
  }
}

export class PageMap {
  constructor(host, name, listen, view) {
    this.host = host;
    this.name = name;
    this.view = view;
    this.side = 12;
    this.tiles = new Map();
    this.seen = new Map();
    this.frames = 0;
    this.pending = 0;
    this.canvas = make("canvas", { class: "uffdlab-canvas", "aria-hidden": "true" });
    this.cell = make("div", { role: "gridcell", tabindex: 0, class: "uffdlab-cursor" });
    this.element = make(
      "div",
      { class: "uffdlab-map", role: "grid", "aria-multiselectable": "true", "aria-label": name },
      make("div", { role: "row", class: "uffdlab-cursor-row" }, this.cell),
      this.canvas,
    );
    this.brush = this.canvas.getContext("2d", { alpha: false });
    const again = () => this.soon();
    view.watchers.add(again);
    listen.also(() => view.watchers.delete(again));
    listen.also(() => cancelAnimationFrame(this.pending));
    const sizes = new ResizeObserver(() => this.resize());
    sizes.observe(this.element);
    listen.also(() => sizes.disconnect());
    listen.on(this.cell, "keydown", (event) => this.key(event));
    listen.on(this.cell, "focus", () => this.host.focus(this.host.first + this.view.cursor, this));
    listen.on(this.canvas, "wheel", (event) => this.wheel(event), { passive: false });
    listen.on(this.canvas, "pointerdown", (event) => this.down(event));
    listen.on(this.canvas, "pointermove", (event) => this.over(event));
    listen.on(this.canvas, "pointerup", () => (this.dragging = false));
    listen.on(this.canvas, "dblclick", (event) => this.view.zoom(4, this.at(event)));
  }

  resize() {
    const width = Math.max(320, Math.min(COLUMNS * 16, this.element.clientWidth || 0));
    const side = Math.floor(width / COLUMNS);
    const scale = window.devicePixelRatio || 1;
    if (side === this.side && this.canvas.width === Math.round(side * COLUMNS * scale)) return;
    this.side = side;
    this.tiles.clear();
    this.canvas.width = Math.round(side * COLUMNS * scale);
    this.canvas.height = Math.round(side * ROWS * scale);
    this.canvas.style.width = `${side * COLUMNS}px`;
    this.canvas.style.height = `${side * ROWS}px`;
    this.paint();
  }

  draw(codes, faded) {
    this.codes = codes;
    this.faded = faded;
    this.seen.clear();
    this.soon();
  }

  select(range = []) {
    this.selection = range;
    this.soon();
  }

  place(index) {
    if (index === this.view.cursor) return;
    this.view.cursor = index;
    this.view.move(0);
  }

  soon() {
    if (!this.pending) {
      this.pending = requestAnimationFrame(() => {
        this.pending = 0;
        this.paint();
      });
    }
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
    if (!this.codes) return;
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
    this.tell();
  }

  paintCell(from, to, x, y) {
    const { brush, side, host } = this;
    const size = side - 1;
    const held = this.held(from, to);
    if (typeof held === "number") brush.drawImage(this.stamp(held), x, y, size, size);
    else this.paintMixed(held, to - from, x, y, size);
    if (this.faded && this.unchanged(from, to)) {
      brush.fillStyle = "rgba(255,255,255,0.75)";
      brush.fillRect(x, y, size, size);
    }
    const [first = 0, count = 0] = this.selection || [];
    if (count && from + host.first < first + count && to + host.first > first) {
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

  // What the cursor's cell says; the number of rows and columns are those of the whole map.
  tell() {
    const { view, host } = this;
    const [from, to] = view.cell(view.cursor);
    const at = Math.floor(from / view.per);
    const [first = 0, count = 0] = this.selection || [];
    const selected = count > 0 && from + host.first < first + count && to + host.first > first;
    this.element.setAttribute("aria-rowcount", view.rows);
    this.element.setAttribute("aria-colcount", COLUMNS);
    this.cell.parentElement.setAttribute("aria-rowindex", Math.floor(at / COLUMNS) + 1);
    this.cell.setAttribute("aria-colindex", (at % COLUMNS) + 1);
    this.cell.setAttribute("aria-selected", selected ? "true" : "false");
    this.cell.setAttribute("aria-label", summary(this.codes, host.kinds, from, to, host.first));
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.max(0, Math.min(COLUMNS - 1, Math.floor(((event.clientX - box.left) / box.width) * COLUMNS)));
    const row = Math.floor(((event.clientY - box.top) / box.height) * ROWS + this.view.top);
    return Math.max(0, Math.min(this.view.count - 1, (row * COLUMNS + column) * this.view.per));
  }

  // The range from the anchor's cell to that of `index`, both whole.
  reach(index) {
    const { host, view } = this;
    const [low, high] = view.cell(host.anchor - host.first);
    const [from, to] = view.cell(index);
    return between(Math.min(low, from) + host.first, Math.max(high, to) - 1 + host.first);
  }

  down(event) {
    if (event.button) return;
    const index = this.at(event);
    if (!event.shiftKey || this.host.anchor === null) this.host.anchor = index + this.host.first;
    this.dragging = true;
    this.view.cursor = index;
    this.view.move(0);
    this.host.select(this.reach(index));
    this.cell.focus({ preventScroll: true });
  }

  over(event) {
    const index = this.at(event);
    if (this.dragging && !event.buttons) this.dragging = false;
    if (this.dragging) this.host.select(this.reach(index));
    this.host.hover(index + this.host.first, this);
  }

  wheel(event) {
    event.preventDefault();
    if (event.shiftKey) this.view.pan(Math.sign(event.deltaY || event.deltaX) * 2);
    else this.view.zoom(event.deltaY < 0 ? 2 : 0.5, this.at(event));
  }

  key(event) {
    const { host, view } = this;
    const rows = { ArrowUp: -1, ArrowDown: 1, PageUp: -ROWS, PageDown: ROWS };
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    const before = view.cursor;
    if (event.key in steps) view.move(steps[event.key] * view.per);
    else if (event.key in rows) view.move(rows[event.key] * COLUMNS * view.per);
    else if (event.key === "Home") view.move(-view.count);
    else if (event.key === "End") view.move(view.count);
    else if (event.key === "+" || event.key === "=" || event.key === "Enter") view.zoom(2);
    else if (event.key === "-") view.zoom(0.5);
    else if (event.key === "0") view.zoom(1 / view.widest);
    else if (event.key === "Escape") {
      host.anchor = null;
      host.select([]);
    } else if (event.key === " ") {
      if (!event.shiftKey || host.anchor === null) host.anchor = view.cursor + host.first;
      host.select(this.reach(view.cursor));
    } else return;
    if (view.cursor !== before) {
      if (event.shiftKey) {
        if (host.anchor === null) host.anchor = before + host.first;
        host.select(this.reach(view.cursor));
      } else host.anchor = null;
      host.focus(view.cursor + host.first, this);
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
