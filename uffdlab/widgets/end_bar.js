import { make } from "./elements.js";
import { endBar } from "./ended.js";
import { guarded, listening } from "./guard.js";

function render({ model, el }) {
  const listen = listening(model, el);
  guarded(model, el, () => el.append(make("div", { class: "uffdlab" }, endBar(model, listen))))();
  return () => listen.end();
}

export default { render };
