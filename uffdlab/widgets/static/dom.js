// Makes elements and tables.  Text is never parsed as HTML.

// make("td", { class: "x", role: "cell" }, "text", child, …) returns an element.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

let numbered = 0;

export function freshId(stem) {
  numbered += 1;
  return `uffdlab-${stem}-${numbered}-${Math.random().toString(36).slice(2, 8)}`;
}

// A table with a caption, header cells and rows of text.
export function table(caption, heads, rows) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...rest]) =>
    make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((text) => make("td", {}, text))),
  );
  return make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...body));
}
