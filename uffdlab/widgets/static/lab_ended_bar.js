// Draws the bar above a widget whose lab has ended, with a button that starts a new lab, or whose Python has ended.
import { make } from "./dom.js";
import { watchPython } from "./python_watch.js";

const NO_PYTHON = "The Python of this notebook has ended, and its labs with it. You see the last state; no button works any more. " +
  "Run the cells again, from the first one, for a new start.";

export function labEndedBar(model, listen) {
  const status = make("p", {});
  const button = make("button", { type: "button" }, "start again");
  const bar = make("div", { class: "uffdlab-ended", role: "alert" });
  let dead = false;
  const update = () => {
    if (dead) return;
    const why = model.get("ended");
    const starts = model.get("_starts");
    status.textContent = starts ? "A new lab boots …" : `No longer live: ${why}`;
    button.disabled = starts;
    bar.replaceChildren(...(why ? [status, button] : []));
  };
  listen.on(button, "click", () => model.send({ ask: "start again" }));
  listen.model("change:ended", update);
  listen.model("change:_starts", update);
  update();
  watchPython(model, listen, () => {
    dead = true;
    status.textContent = NO_PYTHON;
    bar.classList.add("uffdlab-no-python");
    bar.replaceChildren(status);
  });
  return bar;
}
