// The script of a page without a kernel: it answers the requests of widgets from data in the page, in place of Python.

async function unzip(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new DataView(await new Response(stream).arrayBuffer());
}

class StandaloneModel {
  constructor(state) {
    this.state = state;
    this.listeners = new Map();
    this.details = {};
  }

  get(name) {
    return this.state[name];
  }

  set(name, value) {
    this.state[name] = value;
    this.emit(`change:${name}`);
  }

  save_changes() {}

  on(event, action) {
    if (!this.listeners.has(event)) this.listeners.set(event, new Set());
    this.listeners.get(event).add(action);
  }

  off(event, action) {
    if (this.listeners.has(event)) this.listeners.get(event).delete(action);
  }

  emit(event, ...args) {
    for (const action of [...(this.listeners.get(event) || [])]) action(...args);
  }

  send(message) {
    const details = this.details[message.which];
    if (message.ask !== "entry" || !details) return;
    const index = message.page - details.first;
    const raw = details.entries.getBigUint64(8 * index, true);
    const layout = details.layouts[details.wide ? details.which.getUint32(4 * index, true) : details.which.getUint16(2 * index, true)];
    const hex = `0x${raw.toString(16).padStart(16, "0")}`;
    const address = BigInt(details.start) + BigInt(details.page_size) * BigInt(index);
    const codes = this.state[message.which === "before" ? "_before" : "_codes"];
    const kind = codes.byteLength > this.state._meta.count ? codes.getUint16(2 * index, true) : codes.getUint8(index);
    const entry = { title: details.title.replace("{page}", message.page).replace("{entry}", hex), rows: [], facts: `Address 0x${address.toString(16)}.` };
    entry.state = this.state._kinds[kind].state;
    if (layout) {
      const value = (raw >> BigInt(layout.low)) & ((1n << BigInt(layout.top - layout.low)) - 1n);
      const frame = `0x${(value << BigInt(layout.shift)).toString(16)}`;
      entry.raw = hex + layout.where;
      entry.title += layout.where;
      if (layout.framed) entry.facts = `Address 0x${address.toString(16)}, page frame ${frame}.`;
      const filled = (text) => text.replace("{value}", `0x${value.toString(16)}`).replace("{frame}", frame);
      entry.rows = layout.rows.map((row) => row.map(filled));
    }
    this.emit("msg:custom", { id: message.id, entry });
  }
}

const container = document.getElementById("widgets");
for (const exported of JSON.parse(document.getElementById("data").textContent)) {
  const model = new StandaloneModel(exported.state);
  for (const [name, text] of Object.entries(exported.bytes)) model.state[name] = await unzip(text);
  for (const [name, each] of Object.entries(exported.details)) {
    model.details[name] = { ...each, entries: await unzip(each.entries), which: await unzip(each.which) };
  }
  const section = container.appendChild(document.createElement("section"));
  const heading = section.appendChild(document.createElement("h2"));
  heading.textContent = exported.title;
  const widget = widgets[exported.module];
  if (widget.initialize) widget.initialize({ model });
  widget.render({ model, el: section.appendChild(document.createElement("div")) });
}
document.documentElement.dataset.ready = "yes";
