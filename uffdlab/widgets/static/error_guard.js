// Shows an error of the JavaScript in the widget and sends it to Python, which prints it in the notebook.

export function report(model, el, error) {
  const text = error && error.stack ? `${error.message}\n${error.stack}` : String(error);
  let box = el.querySelector(":scope > .uffdlab-error");
  if (!box) {
    box = document.createElement("pre");
    box.className = "uffdlab-error";
    box.setAttribute("role", "alert");
    el.append(box);
  }
  box.textContent = `An error in this widget's JavaScript: ${text}`;
  model.send({ error: text });
}

export function guarded(model, el, action) {
  return (...given) => {
    try {
      const result = action(...given);
      return result instanceof Promise ? result.catch((error) => report(model, el, error)) : result;
    } catch (error) {
      report(model, el, error);
      return undefined;
    }
  };
}

// Collects listeners, to remove all of them with one call.
export function listening(model, el) {
  const ends = [];
  return {
    model(event, action) {
      const safe = guarded(model, el, action);
      model.on(event, safe);
      ends.push(() => model.off(event, safe));
    },
    on(target, event, action, options) {
      const safe = guarded(model, el, action);
      target.addEventListener(event, safe, options);
      ends.push(() => target.removeEventListener(event, safe, options));
    },
    also(end) {
      ends.push(end);
    },
    end() {
      for (const each of ends.splice(0)) each();
    },
  };
}
