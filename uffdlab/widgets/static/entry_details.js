// Draws the details of the page under the cursor: address, raw entry and bits.  The pointer does not change them.
import { make, table } from "./dom.js";
import { EntryReader } from "./entry_cache.js";
import { addressOf } from "./page_codes.js";

export class EntryDetails {
  constructor(model, listen, cache) {
    this.model = model;
    this.reader = new EntryReader(cache, listen, (entry, page) => this.show(entry, page));
    this.element = make("div", { class: "uffdlab-entry", role: "group", "aria-label": "entry of the page under the cursor" });
  }

  // Read it again: the pages have changed.
  refresh() {
    if (this.last) this.showPage(...this.last);
  }

  // kindOf(page, which) returns the kind of the page.
  showPage(page, which, kindOf) {
    const meta = this.model.get("_meta");
    const same = this.last && this.last[0] === page && this.last[1] === which;
    this.last = [page, which, kindOf];
    // The entry that is shown stays until the new one is there, so that nothing flickers.
    if (!same || !this.element.querySelector("table")) {
      const address = addressOf(meta.start, meta.page_size, page - meta.first);
      this.element.replaceChildren(make("p", { class: "uffdlab-facts" }, `page ${page} at ${address}: ${kindOf(page, which).state}`));
    }
    this.reader.want(page, which);
  }

  showText(text) {
    this.last = null;
    this.reader.stop();
    this.element.replaceChildren(make("p", { class: "uffdlab-facts" }, text));
  }

  show(entry, page) {
    const scroller = this.element.querySelector(".uffdlab-scroll");
    const top = scroller ? scroller.scrollTop : 0;
    const facts = make("p", { class: "uffdlab-facts" }, `page ${page}: ${entry.state}. ${entry.facts}`);
    const next = make("div", { class: "uffdlab-scroll", tabindex: 0, role: "group", "aria-label": "its bits" });
    next.append(table(entry.title, ["bit", "name", "value", "means"], entry.rows));
    this.element.replaceChildren(facts, next);
    next.scrollTop = top;
  }
}
