// What is marked on the pages beside their state: which are registered, and on which a touch waits.
import { make } from "./dom.js";
import { formatNumber, rangeName } from "./page_codes.js";

export class PageMarks {
  // registered: [first page, count, modes] of each range; waiting: [page, kind of access] of each touch.
  constructor(registered, waiting) {
    this.registered = registered;
    this.waiting = waiting;
    this.waitingPages = new Map(waiting);
  }

  modes(page) {
    const found = this.registered.find(([first, count]) => page >= first && page < first + count);
    return found ? found[2] : "";
  }

  // Return the marks of a page as text, to follow its state.
  of(page) {
    const modes = this.modes(page);
    const access = this.waitingPages.get(page);
    return `${modes ? `, registered for ${modes}` : ""}${access ? `, a ${access} waits` : ""}`;
  }
}

export function marksOf(registered, waiting) {
  return new PageMarks(registered || [], waiting || []);
}

// Return the items of a legend.
export function markItems(marks) {
  const counts = new Map();
  for (const [, count, modes] of marks.registered) counts.set(modes, (counts.get(modes) || 0) + count);
  const item = (name, text) => {
    const swatch = make("span", { class: `uffdlab-swatch uffdlab-plain ${name}`, "aria-hidden": "true" });
    return make("li", {}, swatch, ` ${text}`);
  };
  const items = [...counts].map(([modes, count]) => item("uffdlab-registered", `registered for ${modes}: ${formatNumber(count)}`));
  if (marks.waiting.length) {
    const pages = marks.waiting.map(([page, access]) => `${access} of ${rangeName(page, 1)}`);
    items.push(item("uffdlab-waits", `a touch waits: ${pages.join(", ")}`));
  }
  return items;
}
