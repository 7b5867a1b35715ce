// Puts the static form of a widget into the notebook's output that holds it, so that a saved notebook has the last state.

export function updateStaticOutput(model, listen) {
  const context = model.widget_manager && model.widget_manager.context;
  const cells = () => (context && context.model && context.model.cells ? [...context.model.cells] : []);
  if (!cells().length) return;
  model.set("in_browser", true);
  model.save_changes();
  listen.model("change:static_form", () => {
    const id = model.get("output_id");
    for (const cell of cells()) {
      const { outputs } = cell;
      for (let at = 0; outputs && at < outputs.length; at += 1) {
        const output = outputs.get(at).toJSON();
        if (!output.metadata || output.metadata.uffdlab !== id) continue;
        outputs.set(at, { ...output, data: { "text/html": model.get("static_form") } });
      }
    }
  });
}
