"""A grid of 1,048,576 pages in Chromium, rendered in software: first paint, frames in pan and zoom, a change."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from harness import Row, median_seconds
from playwright.sync_api import sync_playwright

from uffdlab.observations.snapshot import Snapshot
from uffdlab.widgets import PageGrid

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PAGES = 1 << 20
CHANGED = 512
SECONDS = 3

# A model with the traits as the browser receives them: the codes are bytes, not unpacked.
MODEL = """([state, data]) => {
  const bytes = Uint8Array.from(atob(data), char => char.charCodeAt(0));
  const listeners = new Map();
  window.model = {
    state: { ...state, _codes: new DataView(bytes.buffer), _before: new DataView(new ArrayBuffer(0)) },
    get(name) { return this.state[name]; },
    set(name, value) { this.state[name] = value; },
    save_changes() {}, send() {},
    on(event, action) { listeners.set(event, [...(listeners.get(event) || []), action]); },
    off() {},
    emit(event, ...given) { for (const action of listeners.get(event) || []) action(...given); },
  };
  widget.initialize({ model });
}"""
PAINTED = "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()), 0)))"
FIRST_PAINT = """async () => {
  const el = document.body.appendChild(document.createElement('div'));
  const start = performance.now();
  widget.render({ model, el });
  window.grid = el.uffdlab;
  const painted = await %s;
  if (!grid.panes[0].map.paints) throw new Error('nothing was painted');
  return painted - start;
}""".replace("%s", PAINTED)
BARE_PAINT = """async () => {
  const canvas = document.body.appendChild(document.createElement('canvas'));
  canvas.width = canvas.height = 1024;
  const codes = grid.codes('_codes'), start = performance.now();
  const picture = new ImageData(1024, 1024), pixels = new Uint32Array(picture.data.buffer);
  const colours = [0xfff1f1f1, 0xff009fe6, 0xffb27200, 0xffe6ccd8];
  for (let at = 0; at < codes.length; at += 1) pixels[at] = colours[codes[at] & 3];
  canvas.getContext('2d').putImageData(picture, 0, 0);
  const took = await %s - start;
  canvas.remove();
  return took;
}""".replace("%s", PAINTED)
# Every frame pans or zooms the view, through all levels and back, and repaints the map.
FRAMES = """seconds => new Promise(done => {
  const pane = grid.panes[0].map, { view } = grid, painted = pane.paints, start = performance.now();
  let count = 0;
  const next = () => {
    count += 1;
    if (count %% 8 === 0) view.zoom(count %% 176 < 88 ? 2 : 0.5, (count * 7919) %% view.count);
    else view.pan(count %% 16 < 8 ? 0.5 : -0.5);
    if (performance.now() - start < seconds * 1000) requestAnimationFrame(next);
    else done((pane.paints - painted) / (performance.now() - start) * 1000);
  };
  requestAnimationFrame(next);
})""".replace("%%", "%")
EMPTY_FRAMES = """seconds => new Promise(done => {
  let count = 0;
  const start = performance.now();
  const next = () => {
    count += 1;
    if (performance.now() - start < seconds * 1000) requestAnimationFrame(next);
    else done(count / (performance.now() - start) * 1000);
  };
  requestAnimationFrame(next);
})"""
CHANGE = """async changed => {
  grid.view.zoom(1 / grid.view.widest);
  await %s;
  const start = performance.now();
  model.emit('msg:custom', { patch: 4096 }, [new DataView(new Uint8Array(changed).fill(1).buffer)]);
  return await %s - start;
}""".replace("%s", PAINTED)


def rows() -> Iterator[Row]:
    """Measure the grid.  The peers are a bare image with a pixel for each page, and a web page that draws nothing."""
    one, other = _snapshot(0), _snapshot(CHANGED)
    grid = PageGrid(one)
    synced = grid.get_state()  # what a browser receives
    state = {name: synced[name] for name in ("mode", "selection", "cursor", "_meta", "_kinds", "_status")}
    codes = bytes(synced["_codes"])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_content(f"<style>{synced['_css']}</style><body></body>")
        module = synced["_esm"].replace("export default", "globalThis.widget =")
        page.add_script_tag(content=f"(() => {{ {module} }})()")
        page.evaluate(MODEL, [state, base64.b64encode(codes).decode()])
        empty = float(page.evaluate(EMPTY_FRAMES, SECONDS))
        first = float(page.evaluate(FIRST_PAINT))
        bare = float(page.evaluate(BARE_PAINT))
        yield Row("grid_1m_first_paint", first, "ms", "a bare image of as many pixels", bare)
        yield Row("grid_1m_frames", float(page.evaluate(FRAMES, SECONDS)), "1/s", "a page that draws nothing", empty)
        yield Row("grid_1m_change", float(page.evaluate(CHANGE, CHANGED)), "ms", "first paint of all", first)
        browser.close()
    sent: list[int] = []
    grid.send = lambda _content, buffers=(): sent.append(sum(map(len, buffers)))
    both = [one, other]
    seconds = median_seconds(partial(_switch_snapshots, grid, both), runs=5)
    whole = median_seconds(partial(PageGrid, one), runs=3)
    yield Row("grid_1m_show", seconds * 1e3, "ms", "a new grid of all", whole * 1e3)
    yield Row("grid_1m_change_sent", float(sent[-1]), "B", "all pages", float(len(codes)))


def _switch_snapshots(grid: PageGrid, both: list[Snapshot]) -> None:
    both.reverse()
    grid.show(both[0])


def _snapshot(changed: int) -> Snapshot:
    # Runs of 64 pages in one of three states, the first `changed` pages in one of them.
    kinds: Any = np.array([0, 0x8000000000000465, 0x8000000000000867], dtype=np.uint64)
    entries = np.repeat(np.random.default_rng(1).choice(kinds, PAGES // 64), 64)
    entries[4096 : 4096 + changed] = kinds[1]
    levels = np.ones(PAGES, dtype=np.uint8)
    return Snapshot(region="region-1", start=0, page_size=4096, witness="physical", entries=entries, levels=levels)
