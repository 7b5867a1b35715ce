// The map of a grid with more pages than the DOM can hold: its events, and what assistive technology reads.
import { make } from "./dom.js";
import { MapCanvas } from "./map_canvas.js";
import { between, summary } from "./page_codes.js";
import { COLUMNS } from "./map_viewport.js";

// Each square of the map shows 2^n pages, or one.  For assistive technology there is one element, the square with the
// cursor; its label describes the pages of the square.

export class MapView {
  constructor(grid, name, listen, view) {
    this.grid = grid;
    this.name = name;
    this.view = view;
    this.map = new MapCanvas(grid, view);
    this.canvas = this.map.canvas;
    this.pending = 0;
    this.cell = make("div", { role: "gridcell", tabindex: 0, class: "uffdlab-cursor" });
    this.element = make(
      "div",
      { class: "uffdlab-map", role: "grid", "aria-multiselectable": "true", "aria-label": name },
      make("div", { role: "row", class: "uffdlab-cursor-row" }, this.cell),
      this.canvas,
    );
    const repaint = () => this.requestPaint();
    view.watchers.add(repaint);
    listen.also(() => view.watchers.delete(repaint));
    listen.also(() => cancelAnimationFrame(this.pending));
    const sizes = new ResizeObserver(() => this.resize());
    sizes.observe(this.element);
    listen.also(() => sizes.disconnect());
    // The row numbers have the text colour of the page: repaint them when the theme changes.
    const themes = new MutationObserver(repaint);
    themes.observe(document.body, { attributes: true, attributeFilter: ["class", "data-jp-theme-name"] });
    listen.also(() => themes.disconnect());
    listen.on(window.matchMedia("(prefers-color-scheme: dark)"), "change", repaint);
    listen.on(this.cell, "keydown", (event) => this.onKeyDown(event));
    listen.on(this.cell, "focus", () => this.grid.focus(this.grid.first + this.view.cursor, this));
    listen.on(this.canvas, "wheel", (event) => this.wheel(event), { passive: false });
    listen.on(this.canvas, "pointerdown", (event) => this.onPointerDown(event));
    listen.on(this.canvas, "pointermove", (event) => this.onPointerMove(event));
    listen.on(this.canvas, "pointerup", () => (this.dragging = false));
    listen.on(this.canvas, "pointerleave", () => this.grid.leave());
    listen.on(this.canvas, "dblclick", (event) => this.view.zoom(4, this.at(event)));
  }

  resize() {
    if (this.map.resize(this.element.clientWidth || 0)) this.paint();
  }

  // Draw all pages, or those from index `from` up to `to`.
  draw(codes, faded, from, to) {
    this.map.show(codes, faded, from, to);
    this.requestPaint();
  }

  select(range = []) {
    this.map.selection = range;
    this.requestPaint();
  }

  moveCursor(index) {
    if (index === this.view.cursor) return;
    this.view.cursor = index;
    this.view.move(0);
  }

  requestPaint() {
    if (!this.pending) {
      this.pending = requestAnimationFrame(() => {
        this.pending = 0;
        this.paint();
      });
    }
  }

  paint() {
    if (!this.map.codes) return;
    this.map.paint();
    this.describeCell();
  }

  // Describe the cell with the cursor; the numbers of rows and columns are those of the whole map.
  describeCell() {
    const { view, grid, map } = this;
    const [from, to] = view.cell(view.cursor);
    const at = Math.floor(from / view.pagesPerCell);
    this.element.setAttribute("aria-rowcount", view.rows);
    this.element.setAttribute("aria-colcount", COLUMNS);
    this.cell.parentElement.setAttribute("aria-rowindex", Math.floor(at / COLUMNS) + 1);
    this.cell.setAttribute("aria-colindex", (at % COLUMNS) + 1);
    this.cell.setAttribute("aria-selected", map.selected(from, to) ? "true" : "false");
    this.cell.setAttribute("aria-label", summary(map.codes, grid.kinds, from, to, grid.first) + (view.pagesPerCell === 1 ? grid.marks.of(from + grid.first) : ""));
  }

  at(event) {
    const [x, y] = this.map.at(event);
    const column = Math.max(0, Math.min(COLUMNS - 1, Math.floor(x)));
    const row = Math.floor(y + this.view.top);
    return Math.max(0, Math.min(this.view.count - 1, (row * COLUMNS + column) * this.view.pagesPerCell));
  }

  // Return the range from the cell of the anchor to the cell of `index`, both included as a whole.
  reach(index) {
    const { grid, view } = this;
    const [low, high] = view.cell(grid.anchor - grid.first);
    const [from, to] = view.cell(index);
    return between(Math.min(low, from) + grid.first, Math.max(high, to) - 1 + grid.first);
  }

  onPointerDown(event) {
    if (event.button) return;
    const index = this.at(event);
    if (!event.shiftKey || this.grid.anchor === null) this.grid.anchor = index + this.grid.first;
    this.dragging = true;
    this.view.cursor = index;
    this.view.move(0);
    this.grid.select(this.reach(index), index + this.grid.first);
    this.cell.focus({ preventScroll: true });
  }

  onPointerMove(event) {
    const index = this.at(event);
    if (this.dragging && !event.buttons) this.dragging = false;
    if (this.dragging) this.grid.select(this.reach(index));
    this.grid.hover(index + this.grid.first, this, event);
  }

  // Without the focus the wheel scrolls the page.
  wheel(event) {
    if (!this.cell.matches(":focus")) return;
    event.preventDefault();
    if (event.shiftKey) this.view.pan(Math.sign(event.deltaY || event.deltaX) * 2);
    else this.view.zoom(event.deltaY < 0 ? 2 : 0.5, this.at(event));
  }

  onKeyDown(event) {
    const { grid, view } = this;
    const rows = { ArrowUp: -1, ArrowDown: 1, PageUp: -this.view.screen, PageDown: this.view.screen };
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    const before = view.cursor;
    if (event.key in steps) view.move(steps[event.key] * view.pagesPerCell);
    else if (event.key in rows) view.move(rows[event.key] * COLUMNS * view.pagesPerCell);
    else if (event.key === "Home") view.move(-view.count);
    else if (event.key === "End") view.move(view.count);
    else if (event.key === "+" || event.key === "=" || event.key === "Enter") view.zoom(2);
    else if (event.key === "-") view.zoom(0.5);
    else if (event.key === "0") view.zoom(1 / view.widest);
    else if (event.key === "Escape") {
      grid.anchor = null;
      grid.select([]);
    } else if (event.key === " ") {
      if (!event.shiftKey || grid.anchor === null) grid.anchor = view.cursor + grid.first;
      grid.select(this.reach(view.cursor));
    } else return;
    if (view.cursor !== before) {
      if (event.shiftKey) {
        if (grid.anchor === null) grid.anchor = before + grid.first;
        grid.select(this.reach(view.cursor), view.cursor + grid.first);
      } else grid.anchor = null;
      grid.focus(view.cursor + grid.first, this);
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
