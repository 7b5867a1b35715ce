import { afterEach, beforeEach, vi } from "vitest";

/** The element that a widget is rendered into, a new one for each test.  Timers advance only when a test advances them. */
export let el;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "performance"] });
  el = document.body.appendChild(document.createElement("div"));
});
afterEach(() => {
  vi.useRealTimers();
  el.remove();
});

/** Press a key on an element. */
export const press = (target, key, more = {}) =>
  target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));

/** Return the texts of all elements that a selector finds. */
export const textsOf = (selector) => [...el.querySelectorAll(selector)].map((element) => element.textContent);
