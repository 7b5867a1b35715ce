import { make, table } from "./dom.js";
import { addressOf } from "./page_codes.js";

// The entry under the pointer or the cursor: address, raw value and its bits, requested from Python and cached.

const MOST_KEPT = 5000;
const PAUSE = 40;

export class EntryDetails {
  constructor(model, listen) {
    this.model = model;
    this.kept = new Map();
    this.wanted = "";
    this.timer = 0;
    this.element = make("div", { class: "uffdlab-entry", role: "group", "aria-label": "entry of the page under the pointer or cursor" });
    this.element.append(make("p", { class: "uffdlab-hint" }, "Point at a page, or move to one with the arrow keys."));
    listen.model("msg:custom", (message) => {
      if (!message.entry) return;
      if (this.kept.size > MOST_KEPT) this.kept.clear();
      this.kept.set(message.id, message.entry);
      if (message.id === this.wanted) this.show(message.entry);
    });
    listen.also(() => clearTimeout(this.timer));
  }

  forget() {
    this.kept.clear();
    if (this.last) this.ask(...this.last);
  }

  ask(page, which, kind) {
    const meta = this.model.get("_meta");
    const id = `${which} ${page}`;
    this.last = [page, which, kind];
    this.wanted = id;
    if (this.kept.has(id)) {
      this.show(this.kept.get(id));
      return;
    }
    const address = addressOf(meta.start, meta.page_size, page - meta.first);
    this.element.replaceChildren(make("p", {}, `page ${page} at ${address}: ${kind.says}`));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.model.send({ ask: "entry", page, which, id }), PAUSE);
  }

  say(text) {
    this.last = null;
    this.wanted = "";
    clearTimeout(this.timer);
    this.element.replaceChildren(make("p", { class: "uffdlab-facts" }, text));
  }

  show(entry) {
    const facts = make("p", { class: "uffdlab-facts" }, `${entry.says}. ${entry.facts}`);
    const scroller = make("div", { class: "uffdlab-scroll", tabindex: 0, role: "group", "aria-label": "its bits" });
    scroller.append(table(entry.title, ["bit", "name", "value", "means"], entry.rows));
    this.element.replaceChildren(facts, scroller);
  }
}
