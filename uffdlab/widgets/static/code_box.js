// The widget CodeBox: a piece of code, and a button that copies it.
import { make } from "./dom.js";
import { guarded, listening } from "./error_guard.js";

function render({ model, el }) {
  const listen = listening(model, el);
  guarded(model, el, () => {
    const label = model.get("label");
    const code = make("code", {}, model.get("text"));
    const block = make("pre", { class: "uffdlab-code", tabindex: 0, role: "group", "aria-label": label }, code);
    const button = make("button", { type: "button", "aria-label": `copy ${label}` }, "copy");
    const status = make("span", { role: "status" });
    listen.model("change:text", () => {
      code.textContent = model.get("text");
      status.textContent = "";
    });
    listen.on(button, "click", async () => {
      if (await copied(model.get("text"), code)) status.textContent = " copied";
      else status.textContent = " marked: press Ctrl+C";
    });
    el.append(make("div", { class: "uffdlab uffdlab-code-box" }, make("div", {}, `${label} `, button, status), block));
  })();
  return () => listen.end();
}

// The clipboard exists on secure pages only; elsewhere the text is selected for the user to copy.
async function copied(text, element) {
  if (navigator.clipboard && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not allowed here: select it instead.
    }
  }
  const range = document.createRange();
  range.selectNodeContents(element);
  window.getSelection().removeAllRanges();
  window.getSelection().addRange(range);
  return document.execCommand ? document.execCommand("copy") : false;
}

export default { render };
