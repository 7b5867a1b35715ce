import { describe, expect, it } from "vitest";
import { listening } from "../../uffdlab/widgets/static/error_guard.js";
import { watchPython } from "../../uffdlab/widgets/static/python_watch.js";
import { Model } from "./model.js";

class Signal {
  constructor() {
    this.slots = [];
  }
  connect(slot) {
    this.slots.push(slot);
  }
  disconnect(slot) {
    this.slots = this.slots.filter((other) => other !== slot);
  }
  emit(value) {
    for (const slot of this.slots) slot(this, value);
  }
}

describe("the Python behind a widget", () => {
  const watch = (id = "one") => {
    const session = { session: { kernel: { id } }, statusChanged: new Signal(), kernelChanged: new Signal() };
    const model = new Model();
    model.widget_manager = { context: { sessionContext: session } };
    const listen = listening(model, null);
    const ends = [];
    watchPython(model, listen, () => ends.push("ended"));
    return [session, model, listen, ends];
  };
  it("ends when the kernel is shut down or restarted, which is reported once", () => {
    const [session, , , ends] = watch();
    session.statusChanged.emit("busy");
    expect(ends).toEqual([]);
    session.statusChanged.emit("restarting");
    session.statusChanged.emit("dead");
    expect(ends).toEqual(["ended"]);
  });
  it("ends when the notebook gets another kernel", () => {
    const [session, , , ends] = watch();
    session.kernelChanged.emit();
    expect(ends).toEqual([]);
    session.session = null;
    session.kernelChanged.emit();
    expect(ends).toEqual(["ended"]);
  });
  it("without a session, ends when the connection of the widget is closed", () => {
    const model = new Model();
    const ends = [];
    watchPython(model, listening(model, null), () => ends.push("ended"));
    model.emit("comm_live_update");
    expect(ends).toEqual(["ended"]);
  });
  it("leaves no listener", () => {
    const [session, model, listen] = watch();
    listen.end();
    expect([session.statusChanged.slots.length, session.kernelChanged.slots.length, model.listeners]).toEqual([0, 0, 0]);
  });
});
