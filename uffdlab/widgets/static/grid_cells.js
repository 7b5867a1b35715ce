// Draws the cells of the page grid: one element for each page, for up to 2,048 pages.
import { make } from "./dom.js";
import { paint } from "./colours_and_hatches.js";
import { between } from "./page_codes.js";

// An ARIA grid; one cell is in the tab order.

export function columnsFor(count) {
  const columns = count <= 64 ? 8 : count <= 256 ? 16 : 32;
  return Math.min(columns, count);
}

// Return the cell to which a key moves the cursor; null if the key does not move it.
export function cellAfterKey(index, event, count, columns) {
  const last = count - 1;
  const row = Math.floor(index / columns) * columns;
  switch (event.key) {
    case "ArrowLeft":
      return Math.max(0, index - 1);
    case "ArrowRight":
      return Math.min(last, index + 1);
    case "ArrowUp":
      return index - columns >= 0 ? index - columns : index;
    case "ArrowDown":
      return index + columns <= last ? index + columns : index;
    case "Home":
      return event.ctrlKey ? 0 : row;
    case "End":
      return event.ctrlKey ? last : Math.min(last, row + columns - 1);
    case "PageUp":
      return Math.max(index % columns, index - 8 * columns);
    case "PageDown":
      return Math.min(last, index + 8 * columns);
    default:
      return null;
  }
}

export class GridCells {
  // grid: { marks, first, count, pageSize, start, kinds, select(range), focus(page, pane), hover(page, pane, event), leave(), anchor }
  constructor(grid, name, listen) {
    this.grid = grid;
    this.name = name;
    this.columns = columnsFor(grid.count);
    this.cells = [];
    this.cursor = 0;
    this.element = make("div", { class: "uffdlab-cells", role: "grid", "aria-multiselectable": "true" });
    this.element.style.setProperty("--columns", this.columns);
    this.build();
    listen.on(this.element, "keydown", (event) => this.onKeyDown(event));
    listen.on(this.element, "pointerdown", (event) => this.onPointerDown(event));
    listen.on(this.element, "pointermove", (event) => this.onPointerMove(event));
    listen.on(this.element, "pointerup", () => (this.dragging = false));
    listen.on(this.element, "pointerleave", () => this.grid.leave());
    listen.on(this.element, "pointercancel", () => (this.dragging = false));
    listen.on(this.element, "focusin", (event) => this.focused(event));
  }

  build() {
    const { count, first } = this.grid;
    for (let from = 0; from < count; from += this.columns) {
      const row = make("div", { role: "row", class: "uffdlab-row" });
      row.append(make("span", { role: "rowheader", class: "uffdlab-number" }, String(first + from)));
      for (let index = from; index < Math.min(count, from + this.columns); index += 1) {
        const cell = make("div", { role: "gridcell", class: "uffdlab-cell", tabindex: index ? -1 : 0 });
        cell.dataset.index = index;
        this.cells.push(cell);
        row.append(cell);
      }
      this.element.append(row);
    }
  }

  draw(codes, faded) {
    const { kinds, first, start, pageSize, marks } = this.grid;
    this.element.setAttribute("aria-label", this.name);
    this.cells.forEach((cell, index) => {
      const kind = kinds[codes[index]];
      const marked = marks.of(first + index);
      const drawn = `${codes[index]} ${faded && faded[index] ? 1 : 0}${marked}`;
      if (cell.dataset.drawn === drawn && cell.kind === kind) return;
      cell.dataset.drawn = drawn;
      cell.kind = kind;
      paint(cell, kind);
      // A huge page covers several cells: one letter, no borders between them.
      const continues = kind.span > 1 && (BigInt(start) / BigInt(pageSize) + BigInt(index)) % BigInt(kind.span) !== 0n;
      cell.classList.toggle("uffdlab-joined", continues && index > 0 && codes[index - 1] === codes[index]);
      cell.classList.toggle("uffdlab-faded", Boolean(faded && faded[index]));
      cell.classList.toggle("uffdlab-empty", kind.letter === "·");
      cell.classList.toggle("uffdlab-registered", Boolean(marks.modes(first + index)));
      cell.classList.toggle("uffdlab-waits", marks.waitingPages.has(first + index));
      cell.textContent = continues && index % this.columns && codes[index - 1] === codes[index] ? "" : kind.letter;
      cell.setAttribute("aria-label", `page ${first + index}: ${kind.text}${faded && faded[index] ? ", unchanged" : ""}${marked}`);
    });
  }

  select([from, count] = [0, 0]) {
    const low = from - this.grid.first;
    this.cells.forEach((cell, index) => {
      cell.setAttribute("aria-selected", count > 0 && index >= low && index < low + count ? "true" : "false");
    });
  }

  moveCursor(index) {
    if (index < 0 || index >= this.cells.length) return;
    this.cells[this.cursor].tabIndex = -1;
    this.cells[this.cursor].removeAttribute("aria-current");
    this.cursor = index;
    this.cells[index].tabIndex = 0;
    this.cells[index].setAttribute("aria-current", "true");
  }

  onKeyDown(event) {
    const { grid } = this;
    const page = this.cursor + grid.first;
    if (event.key === " " || event.key === "Enter") {
      if (!event.shiftKey || grid.anchor === null) grid.anchor = page;
      grid.select(between(grid.anchor, page));
    } else if (event.key === "Escape") {
      grid.anchor = null;
      grid.select([]);
    } else if (event.key === "a" && event.ctrlKey) {
      grid.select([grid.first, grid.count]);
    } else {
      const next = cellAfterKey(this.cursor, event, grid.count, this.columns);
      if (next === null) return;
      if (event.shiftKey) {
        if (grid.anchor === null) grid.anchor = page;
        grid.select(between(grid.anchor, next + grid.first), next + grid.first);
      } else grid.anchor = null;
      this.cells[next].focus();
    }
    event.preventDefault();
    event.stopPropagation();
  }

  focused(event) {
    const index = this.indexOf(event.target);
    if (index === null) return;
    this.moveCursor(index);
    this.grid.focus(index + this.grid.first, this);
  }

  onPointerDown(event) {
    const index = this.indexOf(event.target);
    if (index === null || event.button) return;
    const page = index + this.grid.first;
    if (!event.shiftKey || this.grid.anchor === null) this.grid.anchor = page;
    this.dragging = true;
    this.grid.select(between(this.grid.anchor, page));
  }

  onPointerMove(event) {
    const index = this.indexOf(document.elementFromPoint(event.clientX, event.clientY) || event.target);
    if (index === null) {
      this.grid.leave();
      return;
    }
    if (this.dragging && !event.buttons) this.dragging = false;
    if (this.dragging) this.grid.select(between(this.grid.anchor, index + this.grid.first));
    this.grid.hover(index + this.grid.first, this, event);
  }

  indexOf(target) {
    const cell = target.closest ? target.closest(".uffdlab-cell") : null;
    return cell && this.element.contains(cell) ? Number(cell.dataset.index) : null;
  }
}
