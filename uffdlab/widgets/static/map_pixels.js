// Computes the pixels of the squares of the map.
// A pixel is one number of four bytes: little-endian, so red is the lowest byte.  A square has `side` by `side` pixels.
// The last `gap` pixels to the right and at the bottom are the line to its neighbours.

const BLACK = 0xff000000;
const WHITE = 0xffffffff;

// Return a colour such as "#0072B2" as a pixel.
export function pixel(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return (BLACK | (blue << 16) | (green << 8) | red) >>> 0;
}

// Return the colour mixed with three parts of white.
export function lighten(colour) {
  const part = (shift) => Math.round((((colour >>> shift) & 255) + 3 * 255) / 4) << shift;
  return (BLACK | part(16) | part(8) | part(0)) >>> 0;
}

// Return the width of the stripe of each kind in `size` pixels: in proportion to its pages, but at least one.
export function stripeWidths(counts, size) {
  let pages = 0;
  let most = 0;
  for (let kind = 0; kind < counts.length; kind += 1) {
    pages += counts[kind];
    if (counts[kind] > counts[most]) most = kind;
  }
  const widths = new Array(counts.length).fill(0);
  let rest = size;
  for (let kind = 0; kind < counts.length; kind += 1) {
    if (!counts[kind] || kind === most) continue;
    widths[kind] = Math.max(1, Math.floor((counts[kind] * size) / pages));
    rest -= widths[kind];
  }
  // If there are more kinds than pixels, the last ones lose theirs to the most frequent.
  for (let kind = counts.length - 1; rest < 1; kind -= 1) {
    if (!widths[kind]) continue;
    const gives = Math.min(widths[kind], 1 - rest);
    widths[kind] -= gives;
    rest += gives;
  }
  widths[most] = rest;
  return widths;
}

// Return a square for pages of several kinds: a stripe for each kind, and a dot in the middle.
export function stripedSquare(counts, colours, side, gap, line) {
  const size = side - gap;
  const square = new Uint32Array(side * side).fill(line);
  const widths = stripeWidths(counts, size);
  let left = 0;
  for (let kind = 0; kind < widths.length; kind += 1) {
    if (!widths[kind]) continue;
    square.fill(colours[kind], left, left + widths[kind]);
    left += widths[kind];
  }
  for (let y = 1; y < size; y += 1) square.copyWithin(y * side, 0, side);
  const dot = Math.max(3, Math.round(size / 4));
  const from = Math.floor((size - dot) / 2);
  frame(square, side, from - 1, dot + 2, 1, WHITE);
  for (let y = from; y < from + dot; y += 1) square.fill(BLACK, y * side + from, y * side + from + dot);
  return square;
}

// Return a square: the picture, with the line to its neighbours.
export function withGridLines(picture, side, gap, line) {
  const size = side - gap;
  const square = new Uint32Array(side * side).fill(line);
  for (let y = 0; y < size; y += 1) square.set(picture.subarray(y * size, (y + 1) * size), y * side);
  return square;
}

// Return the square with the frame of a selected cell: black, and white inside if there is room.
export function withSelectionFrame(square, side, gap) {
  const copy = square.slice();
  const thick = 2 * gap;
  frame(copy, side, 0, side, thick, BLACK);
  if (side > 5 * thick) frame(copy, side, thick, side - 2 * thick, gap, WHITE);
  return copy;
}

function frame(square, side, from, size, thick, colour) {
  for (let y = 0; y < size; y += 1) {
    const line = (from + y) * side + from;
    if (y < thick || y >= size - thick) square.fill(colour, line, line + size);
    else {
      square.fill(colour, line, line + thick);
      square.fill(colour, line + size - thick, line + size);
    }
  }
}

// Copy a square into `pixels` (rows of `width`) with its upper left corner at (x, y); only rows `from` up to `to`.
export function copySquare(pixels, width, square, side, x, y, from, to) {
  const high = Math.min(side, to - y);
  for (let row = Math.max(0, from - y); row < high; row += 1) {
    let at = (y + row) * width + x;
    for (let each = row * side, end = each + side; each < end; each += 1, at += 1) pixels[at] = square[each];
  }
}
