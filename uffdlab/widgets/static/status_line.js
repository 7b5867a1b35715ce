// The widget StatusLine: one line of text that screen readers announce.
import { make } from "./dom.js";
import { guarded, listening } from "./error_guard.js";
import { updateStaticOutput } from "./static_output.js";

function render({ model, el }) {
  const listen = listening(model, el);
  guarded(model, el, () => updateStaticOutput(model, listen))();
  guarded(model, el, () => {
    const line = make("div", { class: "uffdlab uffdlab-status", role: "status", "aria-live": "polite" }, model.get("text"));
    listen.model("change:text", () => (line.textContent = model.get("text")));
    el.append(line);
  })();
  return () => listen.end();
}

export default { render };
