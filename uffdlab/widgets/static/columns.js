// Rows that come as columns in one run of bytes (see _data/columns.py): unpacked(view, ["f8", "text"]) gives the columns.

const KINDS = { f8: Float64Array, i4: Int32Array, u1: Uint8Array };
const ALIGNED = 8;

export function unpacked(view, kinds) {
  if (!view || !view.byteLength) return kinds.map(() => []);
  // A copy, so that numbers lie where typed arrays want them.
  const buffer = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  const rows = Number(new DataView(buffer).getBigUint64(0, true));
  let at = ALIGNED;
  const taken = (Kind, count) => {
    const part = new Kind(buffer, at, count);
    at += Math.ceil(part.byteLength / ALIGNED) * ALIGNED;
    return part;
  };
  return kinds.map((kind) => {
    if (kind !== "text") return taken(KINDS[kind], rows);
    const ends = taken(Uint32Array, rows);
    const bytes = taken(Uint8Array, rows ? ends[rows - 1] : 0);
    const decoder = new TextDecoder();
    return Array.from(ends, (end, row) => decoder.decode(bytes.subarray(row ? ends[row - 1] : 0, end)));
  });
}
