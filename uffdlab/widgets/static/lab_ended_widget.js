// The widget EndBar: the bar of a lab that has ended, above a widget that has no JavaScript of its own.
import { make } from "./dom.js";
import { updateStaticOutput } from "./static_output.js";
import { labEndedBar } from "./lab_ended_bar.js";
import { guarded, listening } from "./error_guard.js";

function render({ model, el }) {
  const listen = listening(model, el);
  guarded(model, el, () => updateStaticOutput(model, listen))();
  guarded(model, el, () => el.append(make("div", { class: "uffdlab" }, labEndedBar(model, listen))))();
  return () => listen.end();
}

export default { render };
