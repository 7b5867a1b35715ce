import { make } from "./dom.js";
import { CellCounts } from "./cell_counts.js";
import { tile } from "./cell_style.js";
import { number } from "./page_codes.js";
import { chosen, lined, pale, pixel, put, striped } from "./pixels.js";
import { COLUMNS } from "./viewport.js";

// Paints the cells of a map onto its canvas; a cell shows one page, or many.  The cells are composed in memory and copied
// to the canvas at once, because thousands of single drawing calls are slow without a GPU.

const STAMPS = 1024;
const LINE = pixel("#7a7a7a");
const LABEL = 11; // px
const MOST = 16; // px, a cell's side
const LEAST = 5;

export class MapPainter {
  constructor(host, view) {
    this.host = host;
    this.view = view;
    this.stamps = new Map();
    this.cellCounts = new CellCounts(() => host.kinds.length);
    this.colours = [];
    this.frames = 0;
    this.selection = [];
    this.canvas = make("canvas", { class: "uffdlab-canvas", "aria-hidden": "true" });
    this.brush = this.canvas.getContext("2d");
    this.side = 0;
    this.painted = {}; // the view that `pixels` shows
  }

  get codes() {
    return this.cellCounts.codes;
  }

  show(codes, faded, from, to) {
    this.cellCounts.show(codes, faded, from, to);
    this.painted = {};
  }

  // Fit into `room` CSS pixels; return whether that changed anything.
  resize(room) {
    const { view, host, brush } = this;
    const scale = window.devicePixelRatio || 1;
    brush.font = `${LABEL}px sans-serif`;
    const last = number(host.first + view.count);
    const gutter = Math.ceil((brush.measureText(last).width + 6) * scale);
    const fits = Math.floor((room * scale - gutter) / COLUMNS);
    const side = Math.max(LEAST, Math.min(Math.round(MOST * scale), fits));
    if (side === this.side && scale === this.scale && gutter === this.gutter) return false;
    Object.assign(this, { side, scale, gutter, gap: Math.max(1, Math.round(scale)) });
    this.stamps.clear();
    this.cellCounts.forget();
    this.painted = {};
    this.canvas.width = gutter + side * COLUMNS;
    this.canvas.height = side * view.screen;
    this.canvas.style.width = `${this.canvas.width / scale}px`;
    this.canvas.style.height = `${this.canvas.height / scale}px`;
    this.picture = new ImageData(side * COLUMNS, side * view.screen);
    this.pixels = new Uint32Array(this.picture.data.buffer);
    return true;
  }

  // Return the column and the row on the screen at a pointer event; cell corners have integer coordinates.
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const side = this.side / this.scale;
    return [(event.clientX - box.left - this.gutter / this.scale) / side, (event.clientY - box.top) / side];
  }

  paint() {
    const { side, view, pixels, picture } = this;
    const top = Math.round(view.top * side);
    const [from, to] = this.exposed(top);
    pixels.fill(0, from * picture.width, to * picture.width);
    for (let row = Math.floor((top + from) / side); row * side < top + to; row += 1) {
      for (let column = 0; column < COLUMNS; column += 1) {
        const page = (row * COLUMNS + column) * view.per;
        if (page >= view.count) break;
        const square = this.square(page, Math.min(view.count, page + view.per));
        put(pixels, picture.width, square, side, column * side, row * side - top, from, to);
      }
    }
    this.brush.putImageData(picture, this.gutter, 0);
    this.paintRows(top);
    this.paintCursor(top);
    this.frames += 1;
  }

  // Return the range of pixel rows to paint: all, or after a pan only the new ones; move the others.
  exposed(top) {
    const { pixels, picture, painted, view, host } = this;
    const { width, height } = picture;
    const state = [view.per, host.kinds.length, String(this.selection)].join(" ");
    const by = top - painted.top;
    this.painted = { state, top };
    if (painted.state !== state || Math.abs(by) >= height) return [0, height];
    pixels.copyWithin(Math.max(0, -by) * width, Math.max(0, by) * width, (height + Math.min(0, by)) * width);
    return by > 0 ? [height - by, height] : [0, -by];
  }

  // Write the number of the first page left of each row.
  paintRows(top) {
    const { brush, side, scale, view, gutter, host } = this;
    brush.clearRect(0, 0, gutter, this.canvas.height);
    brush.fillStyle = getComputedStyle(this.canvas).color;
    brush.font = `${Math.min(LABEL * scale, side * 0.95)}px sans-serif`;
    brush.textAlign = "right";
    brush.textBaseline = "middle";
    for (let row = Math.floor(top / side); row * side < top + this.canvas.height; row += 1) {
      const from = row * COLUMNS * view.per;
      if (from >= view.count) break;
      if (row % this.every) continue;
      brush.fillText(number(host.first + from), gutter - 4 * scale, row * side - top + side / 2);
    }
  }

  // Number every row if there is room, else every second.
  get every() {
    return this.side / this.scale >= 12 ? 1 : 2;
  }

  square(from, to) {
    const cell = this.cellCounts.of(from, to, this.view.per);
    const picked = this.selected(from, to);
    if (cell.counts) {
      if (!cell.square) cell.square = this.mixed(cell);
      return picked ? chosen(cell.square, this.side, this.gap) : cell.square;
    }
    const key = cell.kind * 4 + (cell.faded ? 2 : 0) + (picked ? 1 : 0);
    let square = this.stamps.get(key);
    if (!square) {
      if (this.stamps.size > STAMPS) this.stamps.clear();
      square = this.drawn(this.host.kinds[cell.kind], cell.faded);
      if (picked) square = chosen(square, this.side, this.gap);
      this.stamps.set(key, square);
    }
    return square;
  }

  drawn(style, faded) {
    const size = this.side - this.gap;
    const { data } = tile(style, size / this.scale, this.scale).getContext("2d").getImageData(0, 0, size, size);
    const picture = new Uint32Array(data.buffer);
    return lined(faded ? picture.map(pale) : picture, this.side, this.gap, LINE);
  }

  mixed(cell) {
    const { kinds } = this.host;
    for (let at = this.colours.length; at < kinds.length; at += 1) this.colours.push(pixel(kinds[at].colour));
    const square = striped(cell.counts, this.colours, this.side, this.gap, LINE);
    return cell.faded ? square.map(pale) : square;
  }

  paintCursor(top) {
    const { brush, side, scale, view, gutter } = this;
    const at = Math.floor(view.cursor / view.per);
    const x = gutter + (at % COLUMNS) * side;
    const y = Math.floor(at / COLUMNS) * side - top;
    brush.lineWidth = 2 * scale;
    brush.strokeStyle = "#ffffff";
    brush.strokeRect(x, y, side - this.gap, side - this.gap);
    brush.strokeStyle = "#000000";
    brush.setLineDash([3 * scale, 2 * scale]);
    brush.strokeRect(x, y, side - this.gap, side - this.gap);
    brush.setLineDash([]);
  }

  selected(from, to) {
    const [first = 0, count = 0] = this.selection;
    return count > 0 && from + this.host.first < first + count && to + this.host.first > first;
  }
}
