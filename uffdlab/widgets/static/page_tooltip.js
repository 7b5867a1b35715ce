// Draws the tooltip of the page under the pointer: its state and its raw entry.
import { make } from "./dom.js";
import { EntryReader } from "./entry_cache.js";

const AWAY = 14; // px from the pointer

export class PageTooltip {
  // root: the element that the tooltip is placed in.
  constructor(listen, cache, root) {
    this.root = root;
    this.reader = new EntryReader(cache, listen, (entry) => (this.raw.textContent = entry.raw || ""));
    this.text = make("span");
    this.raw = make("code");
    // Assistive technology reads the label of the cell and the details below; the tooltip is for the pointer only.
    this.element = make("div", { class: "uffdlab-tooltip", "aria-hidden": "true", hidden: true }, this.text, this.raw);
    listen.on(root, "keydown", () => this.hide(), true);
  }

  showPage(event, text, page, which) {
    this.place(event, text);
    this.raw.textContent = "";
    this.reader.want(page, which);
  }

  showText(event, text) {
    this.reader.stop();
    this.raw.textContent = "";
    this.place(event, text);
  }

  place(event, text) {
    this.text.textContent = text;
    this.element.hidden = false;
    const box = this.root.getBoundingClientRect();
    const x = event.clientX - box.left + AWAY;
    const room = this.root.clientWidth - this.element.offsetWidth - 4;
    this.element.style.left = `${Math.max(0, Math.min(x, room))}px`;
    this.element.style.top = `${event.clientY - box.top + AWAY}px`;
  }

  hide() {
    this.reader.stop();
    this.element.hidden = true;
  }
}
