/* Whether THIS browser can run the course. A classic script in the oldest of styles: it must run where the course
 * does not, and say so. It tries what the widgets use, then drags the explorer that stands in the page. */
(function () {
  var rows = document.getElementById("checks"), verdict = document.getElementById("verdict");
  var faults = [], waiting = 0, done = false;

  function say(name, fine, why) {
    var row = document.createElement("li");
    row.textContent = (fine ? "ok: " : "FAILED: ") + name + (fine ? "" : " (" + why + ")");
    row.className = fine ? "ok" : "failed";
    rows.appendChild(row);
    if (!fine) faults.push(name);
  }
  function check(name, why, test) {
    var fine = false;
    try { fine = !!test(); } catch (error) { why += "; " + error; }
    say(name, fine, why);
  }
  /* A test that answers later: by calling its argument, or never. */
  function checkLater(name, why, test) {
    var open = true;
    function answer(fine, error) {
      if (!open) return;
      open = false;
      say(name, fine, error ? why + "; " + error : why);
      waiting -= 1;
      conclude();
    }
    waiting += 1;
    setTimeout(function () { answer(false, "no answer in 8 seconds"); }, 8000);
    try { test(answer); } catch (error) { answer(false, error); }
  }
  function conclude() {
    if (waiting || !done) return;
    document.body.setAttribute("data-verdict", faults.length ? "failed" : "ok");
    verdict.className = faults.length ? "failed" : "ok";
    verdict.textContent = faults.length
      ? "This browser cannot run the course: " + faults.join(", ") + ". Use a newer one: Chrome or Edge 97, " +
        "Firefox 113, Safari 16.4, or later; and let scripts run in this page."
      : "This browser can run the course. Try it with your own hand: drag γ below, and the curve must follow.";
  }

  check("modern syntax", "the scripts of the widgets use ?., ??= and spread", function () {
    return new Function("let a = {}; a.b ??= [...[1, 2]]; a.c ||= 1; return a.b?.length === 2 && a.c === 1")();
  });
  check("Array.findLast", "a key press looks for the last stop with it", function () {
    return [1, 2, 3].findLast(function (x) { return x < 3; }) === 2 &&
      [1, 2, 3].findLastIndex(function (x) { return x < 3; }) === 1;
  });
  check("places in an SVG (getScreenCTM)", "values under the pointer are found with it", function () {
    var svg = document.getElementById("probe"), box = svg.getBoundingClientRect();
    var spot = new DOMPoint(box.left + box.width / 2, box.top + box.height / 2);
    var found = spot.matrixTransform(svg.getScreenCTM().inverse());
    return Math.abs(found.x - 50) < 1 && Math.abs(found.y - 50) < 1;
  });
  check("binary data", "curves arrive as bytes", function () {
    return new Int16Array(new Uint8Array([1, 2]).buffer)[0] === 513 && new TextDecoder().decode(new Uint8Array([206, 179])) === "γ";
  });
  check("WebSocket", "a live kernel speaks through it", function () { return typeof WebSocket === "function"; });
  checkLater("DecompressionStream", "frames of the sliders are packed with deflate", function (answer) {
    var packed = Uint8Array.from(atob("DEFLATED"), function (c) { return c.charCodeAt(0); });
    var stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    new Response(stream).text().then(function (text) { answer(text === "γ and λ"); }, function (e) { answer(false, e); });
  });
  checkLater("modules from memory", "JupyterLab loads the widgets' scripts in this way", function (answer) {
    var address = URL.createObjectURL(new Blob(["export default 7"], { type: "text/javascript" }));
    new Function("address", "return import(address)")(address).then(
      function (module) { answer(module.default === 7); }, function (e) { answer(false, e); });
  });
  /* The explorer itself: a hand on its first slider must change its curve, its sentence and its numbers. */
  checkLater("an explorer that follows its slider", "the explorer below did not start, or did not move", function (answer) {
    var tries = 0;
    function look() {
      var svg = document.querySelector(".artifex svg"), slider = document.querySelector(".artifex input[type=range]");
      if (!svg || !slider || !svg.getAttribute("data-knobs")) {
        tries += 1;
        return setTimeout(look, 50);
      }
      var curve = svg.querySelector('[id$="-advantages"] path'), start = slider.value;
      function state() { return [curve.getAttribute("d"), svg.getAttribute("aria-label"), svg.getAttribute("data-knobs")]; }
      function move(value) { slider.value = value; slider.dispatchEvent(new Event("input", { bubbles: true })); }
      var before = state();
      move(Math.round(+slider.max / 2));
      var moved = state();
      move(start);
      var back = state();
      answer(moved.every(function (part, i) { return part !== before[i] && back[i] === before[i]; }));
    }
    look();
  });
  done = true;
  conclude();
})();
