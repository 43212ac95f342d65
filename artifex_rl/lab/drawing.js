/* What every figure in the page has in common: matplotlib's SVG, and the paths in it, which are rewritten. */

const GAP = -32768; // "no point here", among 16-bit coordinates

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/* Ids of the drawing are made unique, or two explorers on a page would clip and mark with each other's. */
function drawing(svg) {
  const prefix = `artifex${Math.random().toString(36).slice(2)}-`; // not a count: a page may hold this module twice
  const holder = element("div", { class: "figure" });
  holder.innerHTML = svg.replace(/(\bid="|url\(#|href="#)/g, `$1${prefix}`);
  return [holder.firstElementChild, (id) => holder.querySelector(`[id="${prefix}${id}"]`)];
}

function pathOf(frame, at, curve, unit) {
  const { count, x } = curve;
  const xs = x ? 0 : count; // moving curves carry their x before their y
  let path = "", pen = "M";
  for (let i = 0; i < count; i++) {
    const y = frame[at + xs + i];
    if (y === GAP) { pen = "M"; continue; }
    path += `${pen}${x ? x[i] : frame[at + i] / unit} ${y / unit}`;
    pen = "L";
  }
  return path;
}

