/* The page's side of a live training: buttons, sliders, and curves that the kernel sends while it trains.
 *
 * The kernel sends whole frames: heights of the curves in the SVG's own coordinates, texts of the ticks, marks. The
 * page draws the latest with the next repaint and says so when it is asked, and the kernel waits for that: no queue grows.
 */

const SPEEDS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 0]; // steps a second; 0: as fast as it goes
const LATE = 400; // ms after a move: by then the kernel has heard it, or has overlooked it
const DASHES = ["", "7 3", "2 2.2"]; // of the runs, as in the figure
const WORDS = {
  Start: "Train on, until you pause",
  Step: "Train one step",
  Restart: "Back to the first state, with the sliders where they are",
  Reset: "Back to the first state, and every slider to where it stood at first",
  "What if?": "Fork: the run goes on as it is, and beside it another one, which the sliders then belong to",
  Drop: "Forget the last fork",
};

function svgElement(tag, attributes, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

function render({ model, el }) {
  const layout = model.get("_layout");
  const { axes, parts, unit, sliders: numbers } = layout;
  const [svg, find] = drawing(layout.svg);
  const paths = layout.lines.map((id) => find(id)?.querySelector("path"));
  paths.forEach((path) => path?.setAttribute("d", ""));
  const ticks = (axis, i) => Array.from({ length: parts + 1 }, (_, part) => find(`${axis}tick-${i}-${part}`)?.querySelector("text"));
  const labels = axes.map((_, i) => ({ x: ticks("x", i), y: ticks("y", i) }));
  const marks = axes.map(() => svg.appendChild(svgElement("g", { class: "marks" })));
  svg.setAttribute("role", "img");

  const send = (what, more) => { try { model.send({ do: what, ...more }); } catch { /* no kernel: the note says so */ } };
  const buttons = Object.fromEntries(Object.entries(WORDS).map(([name, title]) => {
    const button = element("button", { type: "button", title }, name);
    return [name, button];
  }));
  const toggle = buttons.Start;
  toggle.classList.add("main");
  toggle.addEventListener("click", () => send(frame().running ? "pause" : "start"));
  for (const [name, what] of [["Step", "step"], ["Restart", "restart"], ["Reset", "reset"], ["What if?", "fork"], ["Drop", "drop"]])
    buttons[name].addEventListener("click", () => send(what));

  const status = element("span", { class: "status" });
  const speed = element("input", { type: "range", min: 0, max: SPEEDS.length - 1, step: 1, "aria-label": "speed" });
  const pace = element("output");
  speed.addEventListener("input", () => { model.set("speed", SPEEDS[+speed.value]); model.save_changes(); });

  const sliders = numbers.map(({ name, label, help, stops }) => {
    const input = element("input", { type: "range", min: 0, max: stops.length - 1, step: 1, "aria-label": label });
    const output = element("output");
    input.addEventListener("input", () => {
      model.set(name, stops[+input.value]);
      model.save_changes();
      setTimeout(answer, LATE); // wakes a kernel that has overlooked the move
    });
    const place = () => {
      const value = model.get(name);
      input.value = stops.reduce((best, stop, i) => (Math.abs(stop - value) < Math.abs(stops[best] - value) ? i : best), 0);
      output.textContent = String(+value.toPrecision(3));
      input.setAttribute("aria-valuetext", output.textContent);
    };
    return { name, input, place, row: element("label", { class: "control", title: help }, element("span", {}, label), input, output) };
  });

  const summary = element("p", { class: "summary", "aria-live": "polite" });
  const legend = element("div", { class: "legend" });
  const sample = element("figure", { class: "sample" });
  const alarm = element("p", { class: "alarm", role: "alert" });
  const note = element("p", { class: "waiting" });
  const root = element("div", { class: "artifex live", role: "group", "aria-label": layout.title },
    element("div", { class: "head" }, element("h4", {}, layout.title), status),
    element("div", { class: "controls" }, ...sliders.map((slider) => slider.row)),
    element("div", { class: "bar" }, ...Object.values(buttons),
      element("label", { class: "control speed", title: "Steps a second" }, element("span", {}, "speed"), speed, pace)),
    note, alarm, legend,
    element("div", { class: layout.show ? "both" : "" }, svg.parentElement, ...(layout.show ? [sample] : [])),
    summary);
  // JupyterLab's command mode would take arrows, Space and Enter from a focused slider or button.
  root.addEventListener("keydown", (event) => event.stopPropagation());
  el.append(root);

  /* Frames --------------------------------------------------------------------------------------------------- */

  const frame = () => model.get("_frame");
  let next = 0, counted = 0, spoken = 0, answered = 0, since = null;

  function draw() {
    next = 0;
    const now = frame(), points = int16(now.data), used = new Set(now.lines);
    axes.forEach(({ box: [left, , right] }, i) => {
      const x = Array.from({ length: now.count }, (_, j) => (left + (j + 0.5) * now.pitch * (right - left)).toFixed(2));
      const prefix = `line-${i}-`;
      now.lines.forEach((line, row) => {
        if (!layout.lines[line].startsWith(prefix)) return;
        paths[line].setAttribute("d", pathOf(points, row * now.count, { count: now.count, x }, unit) + (now.count === 1 ? "h0.1" : ""));
      });
      for (const [axis, texts] of [["x", now.x], ["y", now.y[i]]])
        labels[i][axis].forEach((node, part) => { if (node && node.textContent !== texts[part]) node.textContent = texts[part]; });
      drawMarks(i, now.marks);
    });
    paths.forEach((path, line) => { if (path && !used.has(line) && path.getAttribute("d")) path.setAttribute("d", ""); });
    svg.dataset.step = now.step;
    root.dataset.running = now.running;
    const word = now.running ? "Pause" : "Start";
    if (toggle.textContent !== word) { // a text that is set again is laid out again
      toggle.textContent = word;
      toggle.title = now.running ? "Stop now; what is under way is dropped" : WORDS.Start;
    }
    const steps = rate(now);
    if (!now.running || performance.now() - counted > 150) { // no eye counts faster, and a new text is laid out anew
      status.textContent = now.compiling ? "compiling the step…" : `step ${now.step.toLocaleString("en")}${steps}`;
      counted = performance.now();
    }
    drawLegend(now.legend);
    buttons.Drop.hidden = now.legend.length < 2;
    // Read aloud at rest alone, and not rewritten faster than one can read.
    if (!now.running || performance.now() - spoken > 400) {
      summary.setAttribute("aria-live", now.running ? "off" : "polite");
      if (summary.textContent !== now.text) summary.textContent = now.text;
      svg.setAttribute("aria-label", now.text);
      spoken = performance.now();
    }
    if (now.ask > answered) answer(now.serial);
  }

  /* A message, and no trait: the next value of any trait waits until the kernel is done with the one before, and a
   * kernel can overlook a message until another one comes (ipython/ipykernel#1554). */
  function answer(serial = answered) {
    answered = serial;
    send("drawn", { serial });
  }

  function drawMarks(i, placed) {
    const [left, top, right, bottom] = axes[i].box, key = JSON.stringify(placed);
    if (marks[i].dataset.key === key) return;
    marks[i].dataset.key = key;
    marks[i].replaceChildren(...placed.flatMap(([share, text]) => {
      const x = (left + share * (right - left)).toFixed(2);
      return [
        svgElement("line", { x1: x, x2: x, y1: top, y2: bottom }),
        svgElement("text", { transform: `translate(${x - 3} ${top + 3}) rotate(-90)`, "text-anchor": "end" }, text),
      ];
    }));
  }

  function drawLegend(runs) {
    const key = runs.join("\n");
    if (legend.dataset.key === key) return;
    legend.dataset.key = key;
    legend.replaceChildren(...(runs.length < 2 ? [] : runs).map((text, i) => {
      const line = svgElement("svg", { width: 30, height: 8, viewBox: "0 0 30 8", "aria-hidden": true });
      line.append(svgElement("line", { x1: 0, x2: 30, y1: 4, y2: 4, "stroke-dasharray": DASHES[i] }));
      return element("span", {}, line, i ? `what if: ${text}` : `the run: ${text}`);
    }));
  }

  /* Steps a second, by the page's clock: the kernel sends no times, so that what is stored has none. */
  function rate(now) {
    const time = performance.now();
    if (!now.running || !since || now.step < since.step) since = { time, step: now.step, text: "" };
    if (time - since.time > 700) {
      const value = (1000 * (now.step - since.step)) / (time - since.time);
      since = { time, step: now.step, text: ` · ${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en")} steps/s` };
    }
    return since.text;
  }

  let url = "";
  function drawSample() {
    const now = model.get("_sample") ?? {};
    URL.revokeObjectURL(url);
    if (now.png) {
      url = URL.createObjectURL(new Blob([now.png], { type: "image/png" }));
      sample.replaceChildren(element("img", { src: url, alt: now.alt }));
    } else sample.replaceChildren(element("pre", now.alt ? { "aria-label": now.alt } : {}, now.text ?? ""));
    if (now.step !== undefined) sample.append(element("figcaption", {}, `${now.alt ? `${now.alt.replace(/\.$/, "")}, ` : ""}at step ${now.step.toLocaleString("en")}`));
  }

  /* Whether there is a kernel to press buttons for ------------------------------------------------------------- */

  const inputs = [...Object.values(buttons), speed, ...sliders.map((slider) => slider.input)];
  const enable = (yes) => { inputs.forEach((input) => { input.disabled = !yes; }); };
  let patience = 0;
  const greet = (message) => {
    if (!message?.hello) return;
    clearTimeout(patience);
    note.textContent = "";
    enable(true);
  };
  const missing = () => { note.textContent = "Needs a running kernel: run the cell that makes this panel. This is its last picture."; };
  enable(false);

  const schedule = () => { next ||= requestAnimationFrame(draw); };
  const showError = () => { alarm.textContent = model.get("_error") ?? ""; };
  const showSpeed = () => {
    const value = model.get("speed"), at = SPEEDS.findLastIndex((stop) => stop && stop <= Math.max(1, value));
    speed.value = value ? at : SPEEDS.length - 1;
    pace.textContent = value ? `${value}/s` : "full";
    speed.setAttribute("aria-valuetext", value ? `${value} steps a second` : "full speed");
  };
  const heard = [
    ["change:_frame", schedule], ["change:_sample", drawSample], ["change:_error", showError], ["change:speed", showSpeed],
    ["msg:custom", greet], ...sliders.map(({ name, place }) => [`change:${name}`, place]),
  ];
  heard.forEach(([event, listener]) => model.on(event, listener));
  sliders.forEach((slider) => slider.place());
  showSpeed();
  showError();
  drawSample();
  draw();
  if (typeof model.send === "function") {
    patience = setTimeout(missing, 3000);
    send("hello");
  } else missing();
  return () => {
    clearTimeout(patience);
    cancelAnimationFrame(next);
    URL.revokeObjectURL(url);
    heard.forEach(([event, listener]) => model.off(event, listener));
  };
}

function int16(view) {
  if (!view?.byteLength) return new Int16Array(0);
  return new Int16Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

export default { render };
