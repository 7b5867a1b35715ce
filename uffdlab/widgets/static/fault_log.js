// The widget FaultLog: the touches that wait, buttons that resolve them, and the messages.
import { unpackColumns } from "./unpack_columns.js";
import { make, freshId } from "./dom.js";
import { updateStaticOutput } from "./static_output.js";
import { labEndedBar } from "./lab_ended_bar.js";
import { guarded, listening } from "./error_guard.js";
import { formatNumber } from "./page_codes.js";

const TICK_MS = 500;

export function seconds(age) {
  return age < 60 ? `${age.toFixed(1)} s` : `${Math.floor(age / 60)} min ${Math.floor(age % 60)} s`;
}

// "1,234.5"
export function microseconds(time) {
  const [whole, tenth] = time.toFixed(1).split(".");
  return `${formatNumber(whole)}.${tenth}`;
}

export function counted(counts, kinds) {
  const all = counts.reduce((sum, each) => sum + each, 0);
  const parts = kinds.map((kind, at) => `${formatNumber(counts[at])} ${kind}`);
  return all ? `${formatNumber(all)} message${all > 1 ? "s" : ""}: ${parts.join("; ")}` : "no messages yet";
}

class FaultLog {
  constructor(model, el, listen) {
    this.model = model;
    this.listen = listen;
    this.chosen = null;
    this.name = freshId("touch");
    this.waiting = make("div", { role: "group", "aria-label": "touches that wait", class: "uffdlab-waiting" });
    this.counts = make("p", { class: "uffdlab-facts" });
    this.rows = make("tbody");
    this.status = make("div", { role: "status", class: "uffdlab-status" });
    const field = freshId("content");
    this.data = make("input", { type: "text", id: field, size: 12 });
    this.buttons = make("div", { class: "uffdlab-zoom", role: "group", "aria-label": "resolve" });
    for (const [at, action] of model.get("_actions").entries()) {
      const button = make("button", { type: "button", title: model.get("_about")[at] }, action);
      listen.on(button, "click", () => model.send({ resolve: action, touch: this.chosen, data: this.data.value }));
      this.buttons.append(button);
    }
    this.buttons.append(make("span", { class: "uffdlab-together" }, make("label", { for: field }, "content of a copy:"), this.data));
    const heads = make("tr", {}, make("th", { scope: "col" }, "at, µs"), make("th", { scope: "col" }, "message"));
    const log = make("table", {}, make("caption", {}, "messages, newest first"), make("thead", {}, heads), this.rows);
    const scroller = make("div", { class: "uffdlab-scroll", tabindex: 0, role: "group", "aria-label": "messages" }, log);
    this.element = make("div", { class: "uffdlab uffdlab-fault-log", "data-lm-suppress-shortcuts": "true" });
    this.element.append(
      labEndedBar(model, listen), make("p", { class: "uffdlab-title" }, "Faults"), this.waiting, this.buttons, this.status, this.counts, scroller,
    );
    listen.on(this.waiting, "change", (event) => (this.chosen = Number(event.target.value)));
    listen.model("change:_waiting", () => this.drawWaiting());
    listen.model("change:_rows", () => this.drawRows());
    listen.model("change:_counts", () => this.drawRows());
    listen.model("change:_status", () => (this.status.textContent = model.get("_status")));
    listen.model("msg:custom", (message) => {
      if (message.failed) this.status.textContent = message.failed;
    });
    const timer = setInterval(guarded(model, el, () => this.tick()), TICK_MS);
    listen.also(() => clearInterval(timer));
    this.status.textContent = model.get("_status");
    this.drawWaiting();
    this.drawRows();
  }

  drawWaiting() {
    const [ids, ages, what, where, kinds] = unpackColumns(this.model.get("_waiting"), ["f8", "f8", "text", "text", "text"]);
    const waiting = what.map((_, at) => ({ id: ids[at], age: ages[at], what: what[at], kind: kinds[at], where: where[at] }));
    this.came = performance.now();
    if (!waiting.some((each) => each.id === this.chosen)) this.chosen = waiting.length ? waiting[0].id : null;
    const focused = this.waiting.contains(document.activeElement);
    this.ages = [];
    const lines = waiting.map((each) => {
      const input = make("input", { type: "radio", name: this.name, value: each.id, checked: each.id === this.chosen });
      const age = make("span", {}, seconds(each.age));
      this.ages.push([age, each.age]);
      return make("label", {}, input, make("span", {}, `${each.what} (${each.kind}) waits for `, age));
    });
    this.waiting.replaceChildren(...(lines.length ? lines : [make("p", {}, "No touch waits.")]));
    for (const button of this.buttons.querySelectorAll("button")) button.setAttribute("aria-disabled", String(!lines.length));
    if (focused) {
      const again = this.waiting.querySelector("input:checked");
      if (again) again.focus();
    }
  }

  tick() {
    const past = (performance.now() - this.came) / 1000;
    for (const [element, age] of this.ages) element.textContent = seconds(age + past);
  }

  drawRows() {
    this.counts.textContent = counted(...unpackColumns(this.model.get("_counts"), ["f8", "text"]));
    const [times, texts] = unpackColumns(this.model.get("_rows"), ["f8", "text"]);
    this.rows.replaceChildren(
      ...texts.map((text, at) =>
        make("tr", {}, make("th", { scope: "row" }, microseconds(times[at])), make("td", {}, text)),
      ),
    );
  }
}

function render({ model, el }) {
  const listen = listening(model, el);
  guarded(model, el, () => updateStaticOutput(model, listen))();
  guarded(model, el, () => el.append(new FaultLog(model, el, listen).element))();
  return () => listen.end();
}

export default { render };
