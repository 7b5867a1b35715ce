// The kinds of the pages, as Python sends them: decoded, counted and described.

// Return the codes of the pages: one byte for each page, or two, little-endian.

export function codesOf(view, count) {
  if (!view || !view.byteLength) return null;
  if (view.byteLength === count) return new Uint8Array(view.buffer, view.byteOffset, count);
  if (view.byteOffset % 2 === 0) return new Uint16Array(view.buffer, view.byteOffset, count);
  return new Uint16Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

// Overwrite the codes from page index `first` on.
export function patch(view, count, first, piece) {
  const width = view.byteLength / count;
  const target = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  target.set(new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength), first * width);
}

// Return the number of pages of each kind from index `from` up to `to`.
export function countKinds(codes, from, to, kinds) {
  const counts = new Uint32Array(kinds);
  for (let at = from; at < to; at += 1) counts[codes[at]] += 1;
  return counts;
}

export function formatNumber(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

export function rangeName(first, count) {
  return count === 1 ? `page ${formatNumber(first)}` : `pages ${formatNumber(first)}–${formatNumber(first + count - 1)}`;
}

// Describe a range, the most frequent kind first: "pages 0–7: 6 present, writable; 2 absent".
export function summary(codes, kinds, from, to, first) {
  const counts = countKinds(codes, from, to, kinds.length);
  const merged = new Map();
  counts.forEach((count, kind) => {
    if (count) merged.set(kinds[kind].text, (merged.get(kinds[kind].text) || 0) + count);
  });
  const listed = [...merged].sort((one, other) => other[1] - one[1]);
  const name = rangeName(first + from, to - from);
  if (listed.length === 1) return `${name}: ${listed[0][0]}`;
  return `${name}: ${listed.map(([text, count]) => `${formatNumber(count)} ${text}`).join("; ")}`;
}

// Return the range between two pages, in either order, as [first, count].
export function between(one, other) {
  return [Math.min(one, other), Math.abs(one - other) + 1];
}

// Return an address as hexadecimal text.  The start is text too, because numbers above 2^53 are not exact.
export function addressOf(start, pageSize, index) {
  return `0x${(BigInt(start) + BigInt(pageSize) * BigInt(index)).toString(16)}`;
}
