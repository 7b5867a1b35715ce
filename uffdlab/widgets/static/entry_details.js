// Draws the details of one page-table entry: address, raw value and bits.
import { make, table } from "./dom.js";
import { addressOf } from "./page_codes.js";

// It is the entry under the pointer or the cursor.  Python sends it on request; then it is cached.

const MOST_ENTRIES = 5000;
const PAUSE = 40;

export class EntryDetails {
  constructor(model, listen) {
    this.model = model;
    this.cache = new Map();
    this.requested = "";
    this.timer = 0;
    this.element = make("div", { class: "uffdlab-entry", role: "group", "aria-label": "entry of the page under the pointer or cursor" });
    this.element.append(make("p", { class: "uffdlab-hint" }, "Point at a page, or move to one with the arrow keys."));
    listen.model("msg:custom", (message) => {
      if (!message.entry) return;
      if (this.cache.size > MOST_ENTRIES) this.cache.clear();
      this.cache.set(message.id, message.entry);
      if (message.id === this.requested) this.show(message.entry);
    });
    listen.also(() => clearTimeout(this.timer));
  }

  forget() {
    this.cache.clear();
    if (this.last) this.showPage(...this.last);
  }

  showPage(page, which, kind) {
    const meta = this.model.get("_meta");
    const id = `${which} ${page}`;
    this.last = [page, which, kind];
    this.requested = id;
    if (this.cache.has(id)) {
      this.show(this.cache.get(id));
      return;
    }
    const address = addressOf(meta.start, meta.page_size, page - meta.first);
    this.element.replaceChildren(make("p", {}, `page ${page} at ${address}: ${kind.state}`));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.model.send({ ask: "entry", page, which, id }), PAUSE);
  }

  showText(text) {
    this.last = null;
    this.requested = "";
    clearTimeout(this.timer);
    this.element.replaceChildren(make("p", { class: "uffdlab-facts" }, text));
  }

  show(entry) {
    const facts = make("p", { class: "uffdlab-facts" }, `${entry.state}. ${entry.facts}`);
    const scroller = make("div", { class: "uffdlab-scroll", tabindex: 0, role: "group", "aria-label": "its bits" });
    scroller.append(table(entry.title, ["bit", "name", "value", "means"], entry.rows));
    this.element.replaceChildren(facts, scroller);
  }
}
