// Draws the map on its canvas.
import { make } from "./dom.js";
import { MapCounts } from "./map_counts.js";
import { cellCanvas } from "./colours_and_hatches.js";
import { formatNumber } from "./page_codes.js";
import { withSelectionFrame, withGridLines, lighten, pixel, copySquare, stripedSquare } from "./map_pixels.js";
import { COLUMNS } from "./map_viewport.js";

// Each square shows one page, or many.  They are composed in memory and copied to the canvas at once, because thousands
// of single drawing calls are slow without a GPU.

const MOST_SQUARES = 1024;
const LINE = pixel("#7a7a7a");
const LABEL = 11; // px
const MOST_SIDE = 16; // px, a cell's side
const LEAST_SIDE = 5;

export class MapCanvas {
  constructor(grid, view) {
    this.grid = grid;
    this.view = view;
    this.squares = new Map();
    this.mapCounts = new MapCounts(() => grid.kinds.length);
    this.colours = [];
    this.paints = 0;
    this.selection = [];
    this.canvas = make("canvas", { class: "uffdlab-canvas", "aria-hidden": "true" });
    this.context = this.canvas.getContext("2d");
    this.side = 0;
    this.painted = {}; // the view that `pixels` shows
  }

  get codes() {
    return this.mapCounts.codes;
  }

  show(codes, faded, from, to) {
    this.mapCounts.show(codes, faded, from, to);
    this.painted = {};
  }

  // Fit into `room` CSS pixels; return whether that changed anything.
  resize(room) {
    const { view, grid, context } = this;
    const scale = window.devicePixelRatio || 1;
    context.font = `${LABEL}px sans-serif`;
    const last = formatNumber(grid.first + view.count);
    const gutter = Math.ceil((context.measureText(last).width + 6) * scale);
    const fits = Math.floor((room * scale - gutter) / COLUMNS);
    const side = Math.max(LEAST_SIDE, Math.min(Math.round(MOST_SIDE * scale), fits));
    if (side === this.side && scale === this.scale && gutter === this.gutter) return false;
    Object.assign(this, { side, scale, gutter, gap: Math.max(1, Math.round(scale)) });
    this.squares.clear();
    this.mapCounts.forget();
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
    const [from, to] = this.rowsToPaint(top);
    pixels.fill(0, from * picture.width, to * picture.width);
    for (let row = Math.floor((top + from) / side); row * side < top + to; row += 1) {
      for (let column = 0; column < COLUMNS; column += 1) {
        const page = (row * COLUMNS + column) * view.pagesPerCell;
        if (page >= view.count) break;
        const square = this.square(page, Math.min(view.count, page + view.pagesPerCell));
        copySquare(pixels, picture.width, square, side, column * side, row * side - top, from, to);
      }
    }
    this.context.putImageData(picture, this.gutter, 0);
    this.paintRows(top);
    this.paintMarks(top);
    this.paintCursor(top);
    this.paints += 1;
  }

  // Return the range of pixel rows to paint: all, or after a pan only the new ones; move the others.
  rowsToPaint(top) {
    const { pixels, picture, painted, view, grid } = this;
    const { width, height } = picture;
    const state = [view.pagesPerCell, grid.kinds.length, String(this.selection)].join(" ");
    const by = top - painted.top;
    this.painted = { state, top };
    if (painted.state !== state || Math.abs(by) >= height) return [0, height];
    pixels.copyWithin(Math.max(0, -by) * width, Math.max(0, by) * width, (height + Math.min(0, by)) * width);
    return by > 0 ? [height - by, height] : [0, -by];
  }

  // A line below the squares with registered pages, a dot on those where a touch waits.
  paintMarks(top) {
    const { context, side, scale, view, gutter, grid, gap } = this;
    const high = Math.max(1, Math.round(2 * scale));
    const cellCorner = (cell) => [gutter + (cell % COLUMNS) * side, Math.floor(cell / COLUMNS) * side - top];
    const [low, end] = view.shown;
    context.fillStyle = "#000000";
    for (const [first, count] of grid.marks.registered) {
      const from = Math.max(low, first - grid.first);
      const last = Math.min(end, first - grid.first + count) - 1;
      if (last < from) continue;
      for (let cell = Math.floor(from / view.pagesPerCell); cell <= Math.floor(last / view.pagesPerCell); ) {
        const row = Math.min(Math.floor(last / view.pagesPerCell), Math.floor(cell / COLUMNS) * COLUMNS + COLUMNS - 1);
        const [x, y] = cellCorner(cell);
        context.fillRect(x, y + side - gap - high, (row - cell + 1) * side - gap, high);
        cell = row + 1;
      }
    }
    for (const [page] of grid.marks.waiting) {
      const [x, y] = cellCorner(Math.floor((page - grid.first) / view.pagesPerCell));
      context.beginPath();
      context.arc(x + side * 0.7, y + side * 0.3, Math.max(2, side * 0.25), 0, 2 * Math.PI);
      context.fillStyle = "#d55e00";
      context.fill();
      context.lineWidth = scale;
      context.strokeStyle = "#ffffff";
      context.stroke();
    }
  }

  // Write the number of the first page left of each row.
  paintRows(top) {
    const { context, side, scale, view, gutter, grid } = this;
    context.clearRect(0, 0, gutter, this.canvas.height);
    context.fillStyle = getComputedStyle(this.canvas).color;
    context.font = `${Math.min(LABEL * scale, side * 0.95)}px sans-serif`;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (let row = Math.floor(top / side); row * side < top + this.canvas.height; row += 1) {
      const from = row * COLUMNS * view.pagesPerCell;
      if (from >= view.count) break;
      if (row % this.rowsPerNumber) continue;
      context.fillText(formatNumber(grid.first + from), gutter - 4 * scale, row * side - top + side / 2);
    }
  }

  // Number every row if there is room, else every second.
  get rowsPerNumber() {
    return this.side / this.scale >= 12 ? 1 : 2;
  }

  square(from, to) {
    const cell = this.mapCounts.of(from, to, this.view.pagesPerCell);
    const selected = this.selected(from, to);
    if (cell.counts) {
      if (!cell.square) cell.square = this.mixedSquare(cell);
      return selected ? withSelectionFrame(cell.square, this.side, this.gap) : cell.square;
    }
    const key = cell.kind * 4 + (cell.faded ? 2 : 0) + (selected ? 1 : 0);
    let square = this.squares.get(key);
    if (!square) {
      if (this.squares.size > MOST_SQUARES) this.squares.clear();
      square = this.plainSquare(this.grid.kinds[cell.kind], cell.faded);
      if (selected) square = withSelectionFrame(square, this.side, this.gap);
      this.squares.set(key, square);
    }
    return square;
  }

  plainSquare(style, faded) {
    const size = this.side - this.gap;
    const { data } = cellCanvas(style, size / this.scale, this.scale).getContext("2d").getImageData(0, 0, size, size);
    const picture = new Uint32Array(data.buffer);
    return withGridLines(faded ? picture.map(lighten) : picture, this.side, this.gap, LINE);
  }

  mixedSquare(cell) {
    const { kinds } = this.grid;
    for (let at = this.colours.length; at < kinds.length; at += 1) this.colours.push(pixel(kinds[at].colour));
    const square = stripedSquare(cell.counts, this.colours, this.side, this.gap, LINE);
    return cell.faded ? square.map(lighten) : square;
  }

  paintCursor(top) {
    const { context, side, scale, view, gutter } = this;
    const at = Math.floor(view.cursor / view.pagesPerCell);
    const x = gutter + (at % COLUMNS) * side;
    const y = Math.floor(at / COLUMNS) * side - top;
    context.lineWidth = 2 * scale;
    context.strokeStyle = "#ffffff";
    context.strokeRect(x, y, side - this.gap, side - this.gap);
    context.strokeStyle = "#000000";
    context.setLineDash([3 * scale, 2 * scale]);
    context.strokeRect(x, y, side - this.gap, side - this.gap);
    context.setLineDash([]);
  }

  selected(from, to) {
    const [first = 0, count = 0] = this.selection;
    return count > 0 && from + this.grid.first < first + count && to + this.grid.first > first;
  }
}
