// The widget PageGrid: panes with the pages before and after, legend, selection, and the entry of one page.
import { GridCells } from "./grid_cells.js";
import { make, freshId } from "./dom.js";
import { marksOf, markItems } from "./page_marks.js";
import { updateStaticOutput } from "./static_output.js";
import { labEndedBar } from "./lab_ended_bar.js";
import { EntryCache } from "./entry_cache.js";
import { EntryDetails } from "./entry_details.js";
import { guarded, listening } from "./error_guard.js";
import { paint } from "./colours_and_hatches.js";
import { MapView } from "./map_view.js";
import { codesOf, formatNumber, patch, rangeName, summary } from "./page_codes.js";
import { MapViewport } from "./map_viewport.js";
import { PageTooltip } from "./page_tooltip.js";

const MOST_CELLS = 2048;
const FLICKER_MS = 900;
const MODES = [
  ["side", "side by side"],
  ["flicker", "flicker"],
  ["changed", "only what changed"],
  ["after", "after alone"],
];

// A changed range arrives as a message and is written into the model's bytes, once for all views.
function initialize({ model }) {
  const apply = (message, buffers) => {
    if (message.patch === undefined) return;
    patch(model.get("_codes"), model.get("_meta").count, message.patch, buffers[0]);
  };
  model.on("msg:custom", apply);
  return () => model.off("msg:custom", apply);
}

// The title; "seen by physical" says what that is.
function title(meta) {
  const seen = `seen by ${meta.witness}`;
  if (!meta.witness_about || !meta.title.endsWith(seen)) return make("p", { class: "uffdlab-title" }, meta.title);
  const witness = make("abbr", { title: meta.witness_about, tabindex: 0 }, seen);
  return make("p", { class: "uffdlab-title" }, meta.title.slice(0, -seen.length), witness);
}

class PageGrid {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.listen = listening(model, el);
    this.anchor = null;
    this.root = make("div", { class: "uffdlab uffdlab-page-grid", "data-lm-suppress-shortcuts": "true" });
    el.append(this.root);
    this.bar = labEndedBar(model, this.listen);
    updateStaticOutput(model, this.listen);
    this.bodyListeners = null;
    this.build();
    const { listen } = this;
    listen.model("change:_meta", () => this.build());
    listen.model("change:mode", () => this.build());
    listen.model("change:_codes", () => this.draw());
    listen.model("change:_before", () => this.build());
    listen.model("change:_kinds", () => this.draw());
    listen.model("change:_registered", () => this.draw());
    listen.model("change:_waiting", () => this.draw());
    listen.model("change:_when", () => this.updateMoment());
    listen.model("change:_past", () => {
      this.updateMoment();
      this.draw();
    });
    listen.model("change:selection", () => this.updateSelection());
    listen.model("change:cursor", () => this.updateCursor());
    listen.model("change:_status", () => (this.status.textContent = model.get("_status")));
    listen.model("msg:custom", (message, buffers) => {
      if (message.patch === undefined) return;
      const width = model.get("_codes").byteLength / this.count;
      this.draw(message.patch, message.patch + buffers[0].byteLength / width);
    });
    listen.also(() => this.bodyListeners.end());
    listen.also(() => clearInterval(this.flicker));
  }

  get kinds() {
    return this.model.get("_kinds");
  }

  get mixed() {
    return this.model.get("_meta").mixed;
  }

  build() {
    if (this.bodyListeners) this.bodyListeners.end();
    clearInterval(this.flicker);
    this.bodyListeners = listening(this.model, this.el);
    const { model } = this;
    const meta = model.get("_meta");
    Object.assign(this, { first: meta.first, count: meta.count, pageSize: meta.page_size, start: meta.start });
    this.mode = this.codes("_before") ? model.get("mode") : "after";
    this.entries = new EntryCache(model, this.bodyListeners);
    this.entry = new EntryDetails(model, this.bodyListeners, this.entries);
    this.tooltip = new PageTooltip(this.bodyListeners, this.entries, this.root);
    this.status = make("div", { role: "status", "aria-live": "polite", class: "uffdlab-hidden" }, model.get("_status"));
    this.when = make("p", { class: "uffdlab-when" });
    this.updateMoment();
    this.legend = make("ul", { class: "uffdlab-legend", "aria-label": "legend" });
    this.selectionText = make("p", { class: "uffdlab-selection" });
    this.view = this.count > MOST_CELLS ? new MapViewport(this.count) : null;
    const names = this.mode === "side" ? ["before", "after"] : [this.mode === "flicker" ? "after" : ""];
    this.panes = names.map((name) => this.makePane(name || "after", name ? `${name}: ${meta.title}` : meta.title));
    const panes = make("div", { class: "uffdlab-panes" });
    this.panes.forEach((pane, at) => {
      pane.heading = make("p", { class: "uffdlab-name", "aria-hidden": "true" }, names[at]);
      panes.append(make("div", { class: "uffdlab-pane" }, pane.heading, pane.element));
    });
    const parts = [this.bar, title(meta), this.when];
    if (this.codes("_before") && model.get("_chooses") !== false) parts.push(this.makeModes());
    if (this.view) parts.push(this.makeZoomBar());
    parts.push(panes, this.selectionText, this.legend, this.entry.element, this.tooltip.element, this.status);
    this.root.replaceChildren(...parts);
    if (this.mode === "flicker") this.startFlicker();
    this.panes.forEach((pane) => pane.resize && pane.resize());
    this.draw();
    this.updateSelection();
    this.updateCursor();
  }

  updateMoment() {
    this.when.textContent = this.model.get("_when") || "";
    this.when.classList.toggle("uffdlab-past", Boolean(this.model.get("_past")));
  }

  makePane(which, name) {
    const pane = this.view ? new MapView(this, name, this.bodyListeners, this.view) : new GridCells(this, name, this.bodyListeners);
    pane.which = which;
    return pane;
  }

  makeModes() {
    const group = make("fieldset", { class: "uffdlab-modes" }, make("legend", {}, "show"));
    const name = freshId("mode");
    for (const [value, label] of MODES) {
      const input = make("input", { type: "radio", name, value, checked: this.model.get("mode") === value });
      this.bodyListeners.on(input, "change", () => {
        this.model.set("mode", value);
        this.model.save_changes();
        this.root.querySelector(`input[value="${value}"]`).focus();
      });
      group.append(make("label", {}, input, label));
    }
    return group;
  }

  makeZoomBar() {
    const level = make("span", { class: "uffdlab-level" });
    const bar = make("div", { class: "uffdlab-zoom", role: "group", "aria-label": "zoom" });
    for (const [label, name, action] of [
      ["+", "zoom in", () => this.view.zoom(2)],
      ["−", "zoom out", () => this.view.zoom(0.5)],
      ["all", "show all pages", () => this.view.zoom(1 / this.view.widest)],
    ]) {
      const button = make("button", { type: "button", "aria-label": name, title: name }, label);
      this.bodyListeners.on(button, "click", action);
      bar.append(button);
    }
    const update = () => {
      const { pagesPerCell, shown } = this.view;
      const cell = pagesPerCell === 1 ? "one page" : `${formatNumber(pagesPerCell)} pages`;
      level.textContent = `a cell is ${cell}; ${rangeName(shown[0] + this.first, shown[1] - shown[0])} are shown`;
    };
    update();
    this.view.watchers.add(update);
    const updateDetails = () => this.updateDetails(); // a cell may have become one page
    this.view.watchers.add(updateDetails);
    bar.append(level, make("span", { class: "uffdlab-hint" }, "click the map; then the wheel or + − zooms, shift-wheel or arrows move"));
    return bar;
  }

  startFlicker() {
    const [pane] = this.panes;
    const reduced = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const turn = () => {
      pane.which = pane.which === "after" ? "before" : "after";
      pane.heading.textContent = pane.which;
      pane.draw(this.codes(pane.which === "after" ? "_codes" : "_before"));
    };
    const button = make("button", { type: "button", "aria-pressed": String(!reduced) }, reduced ? "flicker" : "hold still");
    const safe = guarded(this.model, this.el, turn);
    const run = () => (this.flicker = setInterval(safe, FLICKER_MS));
    this.bodyListeners.on(button, "click", () => {
      const running = button.getAttribute("aria-pressed") === "true";
      button.setAttribute("aria-pressed", String(!running));
      button.textContent = running ? "flicker" : "hold still";
      if (running) clearInterval(this.flicker);
      else run();
    });
    this.root.querySelector(".uffdlab-title").after(button);
    if (!reduced) run();
  }

  codes(trait) {
    return codesOf(this.model.get(trait), this.model.get("_meta").count);
  }

  // Draw all pages, or those from index `from` up to `to`.
  draw(from, to) {
    const after = this.codes("_codes");
    const before = this.codes("_before");
    if (!after || after.length !== this.count) return;
    let faded = null;
    if (this.mode === "changed") {
      faded = new Uint8Array(this.count);
      for (let at = 0; at < this.count; at += 1) faded[at] = before[at] === after[at] ? 1 : 0;
    }
    this.marks = marksOf(this.model.get("_registered"), this.model.get("_waiting"));
    for (const pane of this.panes) pane.draw(pane.which === "before" ? before : after, faded, from, to);
    this.drawLegend(after, before);
    this.entries.forget();
    this.entry.refresh();
  }

  drawLegend(after, before) {
    const counts = [before, after].map((codes) => {
      const found = new Map();
      if (!codes) return found;
      const pagesOfKind = new Uint32Array(this.kinds.length);
      for (let at = 0; at < codes.length; at += 1) pagesOfKind[codes[at]] += 1;
      pagesOfKind.forEach((count, kind) => {
        if (!count) return;
        const { letter } = this.kinds[kind];
        found.set(letter, (found.get(letter) || 0) + count);
      });
      return found;
    });
    const styles = new Map(this.kinds.map((kind) => [kind.letter, kind]));
    const items = [...styles.values()].filter((style) => counts.some((found) => found.has(style.letter)));
    this.legend.replaceChildren(
      ...items.map((style) => {
        const swatch = make("span", { class: "uffdlab-swatch", "aria-hidden": "true" }, style.letter);
        paint(swatch, style);
        swatch.classList.toggle("uffdlab-empty", style.letter === "·");
        const shown = counts.map((found) => formatNumber(found.get(style.letter) || 0));
        return make("li", {}, swatch, ` ${style.text}: ${before ? `${shown[0]} → ${shown[1]}` : shown[1]}`);
      }),
      ...markItems(this.marks),
      // The marks are known of now alone.
      ...(this.model.get("_past") ? [make("li", {}, "registered then, and waiting then: not shown")] : []),
    );
  }

  // Send both in one message, so that Python never sees one without the other.
  select(range, cursor = this.model.get("cursor")) {
    this.model.set("selection", range);
    this.model.set("cursor", cursor);
    this.model.save_changes();
    this.updateSelection();
  }

  updateSelection() {
    const range = this.model.get("selection");
    for (const pane of this.panes) pane.select(range);
    this.selectionText.textContent = range.length
      ? `selected: ${rangeName(range[0], range[1])}`
      : "click, drag, or press space to select pages";
  }

  // The user has moved the cursor in this pane.
  focus(page, pane) {
    this.shownPane = pane.which;
    if (this.model.get("cursor") !== page) {
      this.model.set("cursor", page);
      this.model.save_changes();
    }
    this.updateCursor();
  }

  kindOf(page, which) {
    return this.kinds[this.codes(which === "before" ? "_before" : "_codes")[page - this.first]];
  }

  // Describe the cell of the map that holds the page, if it holds more pages.
  summaryOf(page, which) {
    if (!this.view || this.view.pagesPerCell === 1) return null;
    const [from, to] = this.view.cell(page - this.first);
    const codes = this.codes(which === "before" ? "_before" : "_codes");
    return `${which}: ${summary(codes, this.kinds, from, to, this.first)}`;
  }

  hover(page, pane, event) {
    const cellSummary = this.summaryOf(page, pane.which);
    if (cellSummary) this.tooltip.showText(event, cellSummary);
    else {
      const text = `page ${formatNumber(page)}: ${this.kindOf(page, pane.which).state}${this.marks.of(page)}`;
      this.tooltip.showPage(event, text, page, pane.which);
    }
  }

  leave() {
    this.tooltip.hide();
  }

  updateCursor() {
    const page = this.model.get("cursor");
    const index = page - this.first;
    if (index < 0 || index >= this.count) return;
    for (const pane of this.panes) pane.moveCursor(index);
    this.updateDetails();
  }

  updateDetails() {
    const page = this.model.get("cursor");
    const codes = this.codes("_codes");
    if (page < this.first || page >= this.first + this.count || !codes || codes.length !== this.count) return;
    const which = this.shownPane === "before" && this.codes("_before") ? "before" : "after";
    const cellSummary = this.summaryOf(page, which);
    if (cellSummary) this.entry.showText(cellSummary);
    else this.entry.showPage(page, which, (...given) => this.kindOf(...given));
  }
}

function render({ model, el }) {
  let grid = null;
  guarded(model, el, () => {
    grid = new PageGrid(model, el);
    // For benchmarks and tests: they read the number of paints, and the view.
    el.uffdlab = grid;
  })();
  return () => grid && grid.listen.end();
}

export default { initialize, render };
