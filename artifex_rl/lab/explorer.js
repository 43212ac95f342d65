/* The page's side of an explorer: native sliders over the SVG that matplotlib drew.
 *
 * The page holds the frames for every stop of each slider (a strip), so a drag rewrites the paths of the curves and
 * asks nobody. A strip holds while the other sliders stand still. Where none does, the grid over all sliders serves
 * (a stored notebook, a static page), or else the kernel is asked for the frame, then for new strips.
 */

/* Frames as they were packed: int16 differences from frame to frame, low bytes before high bytes, then the texts. */
async function unpack(view, width, rows) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(inflated).arrayBuffer());
  const cells = rows * width;
  const points = new Int16Array(cells); // wraps around, as the differences did
  for (let i = 0; i < cells; i++) points[i] = (raw[i] | (raw[cells + i] << 8)) + (i < width ? 0 : points[i - width]);
  return { points, texts: new TextDecoder().decode(raw.subarray(2 * cells)).split("\n") };
}

function render({ model, el }) {
  const figure = model.get("_figure");
  const { controls, curves, unit } = figure;
  const width = curves.reduce((sum, curve) => sum + curve.count * (curve.x ? 1 : 2), 0);
  const [svg, find] = drawing(figure.svg);
  const lines = curves.map((curve) => find(curve.name));
  const summary = element("p", { class: "summary", "aria-live": "polite" });
  const readout = element("p", { class: "readout" }, "\u00a0");
  const waiting = element("p", { class: "waiting" });
  const alarm = element("p", { class: "alarm", role: "alert" });
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
  cursor.setAttribute("class", "cursor");
  svg.append(cursor);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", figure.title || curves.map((curve) => curve.label).join(", ")); // until its first frame is here

  const text = (control, value) => control.names[nearest(control, value)] ?? value.toFixed(control.decimals);
  const nearest = (control, value) =>
    control.stops.reduce((best, stop, i) => (Math.abs(stop - value) < Math.abs(control.stops[best] - value) ? i : best), 0);
  const standing = () => controls.map((control) => nearest(control, model.get(control.name)));
  const knobs = (at) => Object.fromEntries(controls.map((control, k) => [control.name, control.stops[at[k]]]));

  let keyed = false; // whether the slider in hand is moved by keys

  const sliders = controls.map((control, k) => {
    const input = element("input", { type: "range", min: 0, max: control.stops.length - 1, step: 1, "aria-label": control.label });
    const output = element("output");
    input.addEventListener("input", () => move(k, +input.value));
    for (const event of ["change", "focus", "pointerenter"]) input.addEventListener(event, () => refreshSoon(event === "change" && keyed));
    // JupyterLab's command mode would take the arrow keys from a focused slider.
    input.addEventListener("keydown", (event) => { keyed = true; event.stopPropagation(); });
    input.addEventListener("pointerdown", () => { keyed = false; });
    const row = element("label", { class: "control", title: control.help }, element("span", {}, control.label), input, output);
    return { input, output, row };
  });
  const reset = element("button", { type: "button", title: "Put every slider back to where it stood at first" }, "Reset");
  reset.addEventListener("click", () => {
    controls.forEach((control) => model.set(control.name, control.value));
    model.save_changes();
  });

  const root = element("div", { class: "artifex" });
  if (figure.title) root.append(element("h4", {}, figure.title));
  root.append(
    element("div", { class: "controls" }, ...sliders.map((slider) => slider.row)),
    svg.parentElement, element("div", { class: "bottom" }, element("div", {}, summary, readout), reset), waiting, alarm,
  );
  el.append(root);

  /* What the page holds -------------------------------------------------------------------------------------- */

  let strips = {}, grid = null, single = null, now = null, asked = "", patience = 0, pending = 0;

  const load = async () => {
    const source = model.get("_strips");
    const loaded = {};
    for (const [k, control] of controls.entries()) {
      const strip = source[control.name];
      if (!strip) continue;
      loaded[control.name] = { k, held: strip.held, ...(await unpack(strip.data, width, control.stops.length)) };
    }
    if (model.get("_strips") !== source) return; // newer ones are on their way through this function
    strips = loaded;
    draw();
  };
  const loadGrid = async () => {
    const source = model.get("_grid");
    if (!source?.data) return;
    const stops = controls.map((control) => source.stops[control.name]);
    grid = { stops, ...(await unpack(source.data, width, stops.reduce((product, s) => product * s.length, 1))) };
    draw();
  };
  const loadSingle = async () => {
    const source = model.get("_frame");
    if (!source?.data) return;
    single = { held: source.held, ...(await unpack(source.data, width, 1)) };
    draw();
  };

  const holds = (held, at) => controls.every((c, k) => !(c.name in held) || held[c.name] === c.stops[at[k]]);
  /* The frame for these stops, or null. */
  const lookUp = (at) => {
    for (const strip of Object.values(strips)) if (holds(strip.held, at)) return [strip, at[strip.k]];
    if (single && holds(single.held, at)) return [single, 0];
    if (!grid) return null;
    let row = 0;
    for (const [k, stops] of grid.stops.entries()) {
      const place = stops.indexOf(at[k]);
      if (place < 0) return null;
      row = row * stops.length + place;
    }
    return [grid, row];
  };

  /* Drawing -------------------------------------------------------------------------------------------------- */

  function move(k, index) {
    const at = standing();
    const before = at[k];
    at[k] = index;
    if (keyed && grid && !lookUp(at)) { // a key goes on to the grid's next stop; the nearest may be where it stood
      const stops = grid.stops[k];
      index = index > before ? stops.find((stop) => stop >= index) : stops.findLast((stop) => stop <= index);
    }
    model.set(controls[k].name, controls[k].stops[index]);
    model.save_changes();
  }

  function draw() {
    const at = standing();
    let found = lookUp(at);
    if (!found && grid) { // no kernel: the sliders go in the grid's coarser steps
      const coarse = at.map((i, k) => grid.stops[k].reduce((a, b) => (Math.abs(b - i) < Math.abs(a - i) ? b : a)));
      found = lookUp(coarse);
      const snapped = knobs(coarse);
      at.splice(0, at.length, ...coarse);
      controls.forEach((control) => model.set(control.name, snapped[control.name]));
    }
    sliders.forEach(({ input, output }, k) => {
      input.value = at[k];
      output.textContent = text(controls[k], controls[k].stops[at[k]]);
      input.setAttribute("aria-valuetext", output.textContent);
    });
    if (!found) { ask(at); return; }
    clearTimeout(patience);
    waiting.textContent = "";
    const [frames, row] = found;
    now = { points: frames.points, start: row * width };
    let start = now.start;
    curves.forEach((curve, c) => {
      const path = pathOf(frames.points, start, curve, unit);
      const [first] = lines[c].getElementsByTagName("path");
      const marks = lines[c].getElementsByTagName("use");
      if (marks.length) placeMarks(marks, frames.points, start, curve);
      else first.setAttribute("d", path);
      start += curve.count * (curve.x ? 1 : 2);
    });
    summary.textContent = frames.texts[row];
    svg.setAttribute("aria-label", frames.texts[row]);
    svg.dataset.knobs = JSON.stringify(knobs(at));
    readOut();
  }

  function placeMarks(marks, points, start, curve) {
    for (let i = 0; i < marks.length; i++) {
      const y = points[start + (curve.x ? 0 : curve.count) + i];
      marks[i].setAttribute("visibility", y === GAP ? "hidden" : "visible");
      marks[i].setAttribute("x", curve.x ? curve.x[i] : points[start + i] / unit);
      marks[i].setAttribute("y", y / unit);
    }
  }

  /* Values under the pointer --------------------------------------------------------------------------------- */

  let pointer = null;
  function readOut() {
    cursor.setAttribute("visibility", "hidden");
    readout.textContent = "\u00a0";
    if (!pointer || !now) return;
    const spot = new DOMPoint(pointer.x, pointer.y).matrixTransform(svg.getScreenCTM().inverse());
    const words = [];
    let start = now.start;
    for (const curve of curves) {
      const box = curve.data?.box;
      if (box && spot.x >= box[0] && spot.x <= box[2] && spot.y >= box[1] && spot.y <= box[3]) {
        const i = curve.x.reduce((best, x, j) => (Math.abs(x - spot.x) < Math.abs(curve.x[best] - spot.x) ? j : best), 0);
        const y = now.points[start + i];
        if (!words.length) {
          words.push(`${curve.data.xlabel || "x"} ${+curve.data.x[i].toFixed(3)}`);
          for (const [key, value] of [["x1", curve.x[i]], ["x2", curve.x[i]], ["y1", box[1]], ["y2", box[3]]]) cursor.setAttribute(key, value);
          cursor.setAttribute("visibility", "visible");
        }
        if (y !== GAP) words.push(`${curve.label} ${((curve.data.y[0] * y) / unit + curve.data.y[1]).toPrecision(3)}`);
      }
      start += curve.count * (curve.x ? 1 : 2);
    }
    if (words.length) readout.textContent = words.join("  ·  ");
  }
  svg.addEventListener("pointermove", (event) => { pointer = { x: event.clientX, y: event.clientY }; readOut(); });
  svg.addEventListener("pointerleave", () => { pointer = null; readOut(); });

  /* Asking the kernel ---------------------------------------------------------------------------------------- */

  /* Synced traits are latest-only: however fast the hand, at most one question waits. */
  function ask(at) {
    const wanted = knobs(at);
    const key = JSON.stringify(wanted);
    if (key === asked) return;
    asked = key;
    model.set("_request", { knobs: wanted });
    model.save_changes();
    clearTimeout(patience);
    patience = setTimeout(() => {
      if (!lookUp(standing())) waiting.textContent = "Waiting for the kernel. If it was stopped, run this cell again.";
    }, 2000);
    setTimeout(() => { // a kernel can overlook a message until another one comes (ipython/ipykernel#1554)
      const there = Object.values(strips);
      try { if (!there.length || !there.every((strip) => holds(strip.held, at))) model.send({}); } catch { /* no kernel */ }
    }, 500);
  }

  /* Once a slider is released the strips of the others are stale: fetch new ones before a hand reaches them. */
  function refreshSoon(more) { // more: a key that is held down would ask at every press
    clearTimeout(pending);
    pending = setTimeout(() => {
      const at = standing();
      if (!grid && !Object.values(strips).every((strip) => holds(strip.held, at))) ask(at);
    }, more ? 120 : 0);
  }

  const showError = () => { alarm.textContent = model.get("_error") ?? ""; };
  const heard = [
    ["change:_strips", load], ["change:_grid", loadGrid], ["change:_frame", loadSingle], ["change:_error", showError],
    ...controls.map((control) => [`change:${control.name}`, draw]),
  ];
  heard.forEach(([event, listener]) => model.on(event, listener));
  showError();
  load().then(loadGrid);
  return () => {
    clearTimeout(patience);
    clearTimeout(pending);
    heard.forEach(([event, listener]) => model.off(event, listener));
  };
}

export default { render };
