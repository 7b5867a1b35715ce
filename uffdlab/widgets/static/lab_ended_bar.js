// Draws the bar above a widget whose lab has ended: the reason, and a button that starts a new lab.
import { make } from "./dom.js";

export function labEndedBar(model, listen) {
  const status = make("p", {});
  const button = make("button", { type: "button" }, "start again");
  const bar = make("div", { class: "uffdlab-ended", role: "alert" });
  const update = () => {
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
  return bar;
}
