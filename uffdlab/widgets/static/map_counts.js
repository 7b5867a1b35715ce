// Counts the pages of each kind in each square of the map.
import { countKinds } from "./page_codes.js";

// The counts are cached until the pages change.  Pages are counted in blocks.  A block whose pages all have one kind is
// stored as one number, so that zooming stays cheap with many pages in a square.

const BLOCK = 64;
const MOST_CACHED = 100000; // cells
const NOT_COUNTED = -2;
const MIXED = -1;

export class MapCounts {
  // kinds() returns the number of kinds.
  constructor(kinds) {
    this.kinds = kinds;
    this.forget();
  }

  // Set the pages; if only those from index `from` up to `to` have changed, recount only these.
  show(codes, faded, from = 0, to = codes.length) {
    const blocks = Math.ceil(codes.length / BLOCK);
    if (!this.blocks || this.blocks.length !== blocks) this.blocks = new Int32Array(blocks).fill(NOT_COUNTED);
    else this.blocks.fill(NOT_COUNTED, Math.floor(from / BLOCK), Math.ceil(to / BLOCK));
    this.codes = codes;
    this.faded = faded;
    this.forget();
  }

  forget() {
    this.levels = new Map();
    this.cached = 0;
  }

  // Return { kind, counts, faded } of the cell with the pages from index `from` up to `to`: the kind if all its pages
  // have the same, else -1 and the number of pages of each kind.
  of(from, to, pagesPerCell) {
    if (this.cached > MOST_CACHED) this.forget();
    let level = this.levels.get(pagesPerCell);
    if (!level) this.levels.set(pagesPerCell, (level = new Map()));
    const cell = from / pagesPerCell;
    let counted = level.get(cell);
    if (!counted) {
      counted = this.count(from, to);
      level.set(cell, counted);
      this.cached += 1;
    }
    return counted;
  }

  count(from, to) {
    const counts = to - from < BLOCK ? countKinds(this.codes, from, to, this.kinds()) : this.countBlocks(from, to);
    const kind = counts.findIndex((count) => count === to - from);
    return { kind, counts: kind < 0 ? counts : null, faded: this.isFaded(from, to) };
  }

  countBlocks(from, to) {
    const counts = new Uint32Array(this.kinds());
    for (let block = from / BLOCK, at = from; at < to; block += 1, at += BLOCK) {
      const end = Math.min(to, at + BLOCK);
      if (this.blocks[block] === NOT_COUNTED) this.blocks[block] = this.kindOf(at, end);
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
