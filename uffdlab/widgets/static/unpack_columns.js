// Unpacks the columns of a table from bytes; see _data/columns.py.
// unpackColumns(view, ["f8", "text"]) returns the two columns of a table with numbers and texts.

const KINDS = { f8: Float64Array, i4: Int32Array, u1: Uint8Array };
const ALIGNED = 8;

export function unpackColumns(view, kinds) {
  if (!view || !view.byteLength) return kinds.map(() => []);
  // A copy, so that the numbers have the alignment of typed arrays.
  const buffer = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  const rows = Number(new DataView(buffer).getBigUint64(0, true));
  let at = ALIGNED;
  const next = (Kind, count) => {
    const part = new Kind(buffer, at, count);
    at += Math.ceil(part.byteLength / ALIGNED) * ALIGNED;
    return part;
  };
  return kinds.map((kind) => {
    if (kind !== "text") return next(KINDS[kind], rows);
    const ends = next(Uint32Array, rows);
    const bytes = next(Uint8Array, rows ? ends[rows - 1] : 0);
    const decoder = new TextDecoder();
    return Array.from(ends, (end, row) => decoder.decode(bytes.subarray(row ? ends[row - 1] : 0, end)));
  });
}
