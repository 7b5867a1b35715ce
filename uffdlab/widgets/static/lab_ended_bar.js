import { make } from "./dom.js";
import { endBar } from "./lab_ended.js";
import { guarded, listening } from "./error_guard.js";

function render({ model, el }) {
  const listen = listening(model, el);
  guarded(model, el, () => el.append(make("div", { class: "uffdlab" }, endBar(model, listen))))();
  return () => listen.end();
}

export default { render };
