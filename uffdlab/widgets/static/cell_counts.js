import { tally } from "./page_codes.js";

// What the cells of a map hold, kept until the pages change.  Pages are looked at in blocks: a block all of whose pages
// are of one kind is one number, so that a cell of many pages costs little however often the map is zoomed.

const BLOCK = 64;
const KEPT = 100000; // cells
const UNSEEN = -2;
const MIXED = -1;

export class CellCounts {
  // kinds() gives how many kinds there are.
  constructor(kinds) {
    this.kinds = kinds;
    this.forget();
  }

  // Other pages, or the same of which those from index `from` up to `to` have changed.
  show(codes, faded, from = 0, to = codes.length) {
    const blocks = Math.ceil(codes.length / BLOCK);
    if (!this.blocks || this.blocks.length !== blocks) this.blocks = new Int32Array(blocks).fill(UNSEEN);
    else this.blocks.fill(UNSEEN, Math.floor(from / BLOCK), Math.ceil(to / BLOCK));
    this.codes = codes;
    this.faded = faded;
    this.forget();
  }

  forget() {
    this.levels = new Map();
    this.kept = 0;
  }

  // For the cell of the pages from index `from` up to `to`, one of those that stand for `per` pages:
  // { kind, counts, faded }: the one kind of all its pages, or -1 and how many there are of each.
  of(from, to, per) {
    if (this.kept > KEPT) this.forget();
    let level = this.levels.get(per);
    if (!level) this.levels.set(per, (level = new Map()));
    const cell = from / per;
    let held = level.get(cell);
    if (!held) {
      held = this.count(from, to);
      level.set(cell, held);
      this.kept += 1;
    }
    return held;
  }

  count(from, to) {
    const counts = to - from < BLOCK ? tally(this.codes, from, to, this.kinds()) : this.tallied(from, to);
    const kind = counts.findIndex((count) => count === to - from);
    return { kind, counts: kind < 0 ? counts : null, faded: this.isFaded(from, to) };
  }

  tallied(from, to) {
    const counts = new Uint32Array(this.kinds());
    for (let block = from / BLOCK, at = from; at < to; block += 1, at += BLOCK) {
      const end = Math.min(to, at + BLOCK);
      if (this.blocks[block] === UNSEEN) this.blocks[block] = this.kindOf(at, end);
      if (this.blocks[block] !== MIXED) counts[this.blocks[block]] += end - at;
      else for (let page = at; page < end; page += 1) counts[this.codes[page]] += 1;
    }
    return counts;
  }

  kindOf(from, to) {
    const { codes } = this;
    const kind = codes[from];
    for (let at = from + 1; at < to; at += 1) if (codes[at] !== kind) return MIXED;
    return kind;
  }

  isFaded(from, to) {
    if (!this.faded) return false;
    for (let page = from; page < to; page += 1) if (!this.faded[page]) return false;
    return true;
  }
}
