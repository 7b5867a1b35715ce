// The model of a widget in a page without a notebook: traits, listeners, and the messages sent to Python.

export class Model {
  constructor(state) {
    this.state = { ended: "", _starts: false, _status: "", ...state };
    this.sent = [];
    this.saved = 0;
    this.handlers = new Map();
  }

  get(name) {
    return this.state[name];
  }

  set(name, value) {
    this.state[name] = value;
  }

  save_changes() {
    this.saved += 1;
  }

  send(message) {
    this.sent.push(message);
  }

  on(event, action) {
    this.handlers.set(event, [...(this.handlers.get(event) || []), action]);
  }

  off(event, action) {
    this.handlers.set(event, (this.handlers.get(event) || []).filter((handler) => handler !== action));
  }

  // Change a trait as Python would.
  change(name, value) {
    this.state[name] = value;
    this.emit(`change:${name}`);
  }

  emit(event, ...given) {
    for (const action of this.handlers.get(event) || []) action(...given);
  }

  get listeners() {
    return [...this.handlers.values()].flat().length;
  }
}

// Rows as uffdlab/widgets/_data/columns.py packs them.
export function packed(rows, ...columns) {
  const parts = [new BigUint64Array([BigInt(rows)]), ...columns.flat()].map((part) => new Uint8Array(part.buffer));
  const bytes = parts.flatMap((part) => [...part, ...new Array((8 - (part.length % 8)) % 8).fill(0)]);
  return new DataView(new Uint8Array(bytes).buffer);
}

export function texts(...names) {
  const encoded = names.map((name) => new TextEncoder().encode(name));
  let end = 0;
  return [new Uint32Array(encoded.map((bytes) => (end += bytes.length))), new Uint8Array(encoded.flatMap((bytes) => [...bytes]))];
}
