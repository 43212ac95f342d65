// A deck: reveal.js without its scaling (sizes are in units of the screen), and sliders that keep their keys.

const inExplorer = (node) => node?.closest?.(".artifex");

function start() {
  for (const explorer of document.querySelectorAll(".artifex-page")) explorer.dataset.preventSwipe = "";
  // A slider keeps its arrows. A presenter's remote sends Page Down, and that always turns the slide.
  window.addEventListener("keydown", (event) => {
    if (!inExplorer(event.target)) return;
    const turn = { PageDown: () => Reveal.next(), PageUp: () => Reveal.prev(), Escape: () => event.target.blur() }[event.key];
    if (!turn) return;
    event.preventDefault();
    event.stopPropagation();
    turn();
  }, true);
  Reveal.on("ready", fit);
  Reveal.on("slidechanged", () => { if (inExplorer(document.activeElement)) document.activeElement.blur(); fit(); });
  addEventListener("resize", () => { for (const body of document.querySelectorAll(".body")) body.style.fontSize = ""; fit(); });
  document.addEventListener("toggle", fit, true);
  Reveal.initialize({
    hash: true, disableLayout: true, navigationMode: "linear", transition: "none", backgroundTransition: "none",
    slideNumber: "c/t", scrollActivationWidth: 0, plugins: [RevealNotes],
    keyboardCondition: (event) => !inExplorer(document.activeElement)
      && !(document.activeElement?.closest?.("summary, a, button") && ["Enter", " "].includes(event.key)),
  });
}

// A formula that is too wide gets as small as it must, text that is a little too long a little smaller, and a few
// lines larger; what is much too long can be scrolled.
function fit() {
  const body = window.Reveal?.getCurrentSlide?.()?.querySelector(".body");
  if (!body || body.querySelector("details[open]")) return;
  for (const formula of body.querySelectorAll('mjx-container[display="true"]')) {
    const share = formula.clientWidth / formula.scrollWidth;
    if (share < 1) formula.style.fontSize = `${Math.floor(98 * share)}%`;
  }
  const end = body.lastElementChild?.getBoundingClientRect().bottom ?? Infinity;
  const sparse = end - body.getBoundingClientRect().top < 0.4 * body.clientHeight;
  if (sparse && body.parentElement.matches(".prose-slide")) body.style.fontSize = "120%";
  for (let size = 100; size >= 70 && body.scrollHeight > body.clientHeight + 1; size -= 5) body.style.fontSize = `${size}%`;
}
