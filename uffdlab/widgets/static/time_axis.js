// A true time axis whose empty stretches are compressed: where each moment is, and where something was left out.

const MOST = 90; // px: a longer stretch without any event is compressed
const COMPRESSED = 34; // px

// times: the moments at which events begin or end, in µs; scale: px per µs.
export class TimeAxis {
  constructor(times, scale) {
    this.times = [...new Set(times)].sort((one, other) => one - other);
    this.breaks = []; // { from, to, x }: stretches that are compressed, in µs, and where they begin, in px
    this.places = [];
    let x = 0;
    this.times.forEach((time, at) => {
      if (at) {
        const past = time - this.times[at - 1];
        const wide = past * scale;
        if (wide > MOST) this.breaks.push({ from: this.times[at - 1], to: time, x });
        x += wide > MOST ? COMPRESSED : wide;
      }
      this.places.push(x);
    });
    this.width = x;
  }

  // Return the place in px of one of the times.
  x(time) {
    let low = 0;
    let high = this.times.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.times[middle] < time) low = middle + 1;
      else high = middle;
    }
    return this.places[low];
  }
}

// Put spans [from, to) in px into as few rows as possible, so that none covers another; return the row of each.
export function rowsFor(spans) {
  const ends = [];
  return spans.map(([from, to]) => {
    let row = ends.findIndex((end) => end <= from);
    if (row < 0) row = ends.length;
    ends[row] = to;
    return row;
  });
}
