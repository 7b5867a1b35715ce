// The look of a kind of page: colour, hatch and letter, as CSS and on a canvas.
// Hatches have matplotlib's notation.

export function hatchColour(colour) {
  const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const factor = parts[0] + parts[1] + parts[2] > 200 ? 0.62 : 2;
  return `rgb(${parts.map((part) => Math.min(255, Math.round(part * factor))).join(",")})`;
}

export function hatchCss(style) {
  const line = hatchColour(style.colour);
  const stripes = (angle) => `repeating-linear-gradient(${angle}, ${line} 0 1px, transparent 1px 6px)`;
  switch (style.hatch[0]) {
    case "/":
      return stripes("-45deg");
    case "\\":
      return stripes("45deg");
    case "x":
      return `${stripes("-45deg")}, ${stripes("45deg")}`;
    case "-":
      return stripes("0deg");
    case ".":
      return `radial-gradient(${line} 1px, transparent 1.4px) 0 0 / 6px 6px`;
    default:
      return "";
  }
}

export function paint(element, style) {
  const hatch = hatchCss(style);
  element.style.background = hatch ? `${hatch}, ${style.colour}` : style.colour;
  element.style.backgroundColor = style.colour;
  element.style.color = style.ink;
  element.style.textShadow = hatch
    ? [[-1, 0], [1, 0], [0, -1], [0, 1], [-1, -1], [1, 1]].map(([x, y]) => `${x}px ${y}px 1px ${style.colour}`).join(",")
    : "none";
}

// Return a canvas with one cell, to be copied many times.
export function cellCanvas(style, size, scale) {
  const canvas = document.createElement("canvas");
  const pixels = Math.max(1, Math.round(size * scale));
  canvas.width = pixels;
  canvas.height = pixels;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.fillStyle = style.colour;
  context.fillRect(0, 0, size, size);
  context.strokeStyle = hatchColour(style.colour);
  context.lineWidth = 0.8;
  strokeHatch(context, style.hatch[0], size);
  if (size >= 9) {
    context.font = `bold ${size * (style.letter.length > 1 ? 0.5 : 0.66)}px sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    if (style.hatch) {
      context.strokeStyle = style.colour;
      context.lineWidth = 3;
      context.strokeText(style.letter, size / 2, size / 2 + 0.5);
    }
    context.fillStyle = style.ink;
    context.fillText(style.letter, size / 2, size / 2 + 0.5);
  }
  return canvas;
}

function strokeHatch(context, hatch, size) {
  context.beginPath();
  for (let at = -size; at < 2 * size; at += 4) {
    if (hatch === "/" || hatch === "x") {
      context.moveTo(at, size);
      context.lineTo(at + size, 0);
    }
    if (hatch === "\\" || hatch === "x") {
      context.moveTo(at, 0);
      context.lineTo(at + size, size);
    }
    if (hatch === "-" && at >= 0 && at < size) {
      context.moveTo(0, at + 2);
      context.lineTo(size, at + 2);
    }
  }
  context.stroke();
  if (hatch === ".") {
    context.fillStyle = context.strokeStyle;
    for (let x = 2; x < size; x += 4) for (let y = 2; y < size; y += 4) context.fillRect(x, y, 1, 1);
  }
}
