"""A static page: the explorer's own script with a model that needs no kernel, and everything inlined."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json

#: The last line of the script; anywidget reads it as a module, a page replaces it by a call.
EXPORT = "export default { render };"

_MODEL = """
const read = (value) =>
  value && typeof value === "object"
    ? typeof value.$b64 === "string"
      ? new DataView(Uint8Array.from(atob(value.$b64), (c) => c.charCodeAt(0)).buffer)
      : Array.isArray(value) ? value.map(read)
      : Object.fromEntries(Object.entries(value).map(([k, v]) => [k, read(v)]))
    : value;
const root = document.getElementById("ID");
const state = read(JSON.parse(root.querySelector("script[type='application/json']").textContent));
const listeners = {};
const model = {
  get: (key) => state[key],
  set: (key, value) => {
    if (state[key] === value) return;
    state[key] = value;
    (listeners["change:" + key] ?? []).forEach((listener) => listener());
  },
  on: (event, listener) => (listeners[event] ??= []).push(listener),
  off: () => {},
  save_changes: () => {},
};
root.querySelector(".artifex-fallback").remove();
render({ model, el: root });
root.artifex = model;
"""

_serial = itertools.count()


def fragment(script: str, style: str, state: dict, fallback: str, name: str | None = None) -> str:
    """HTML that may stand in any page, several times over.

    Args:
        script: a module that exports `render`, in its last line.
        style: CSS of it.
        state: what the script's model holds.
        fallback: HTML that shows where scripts do not run.
        name: an id that is unique in the page. Default: one that is unique in the process.
    """
    if EXPORT not in script:
        raise ValueError(f"script: got no line {EXPORT!r}, needs it as the place where a page calls render")
    data = json.dumps(_encode(state), ensure_ascii=False, sort_keys=True).replace("</", "<\\/")
    if name is None:  # unique in a page where the same explorer stands twice, yet the same in every run
        name = f"{hashlib.sha256(data.encode()).hexdigest()[:8]}-{next(_serial)}"
    name = f"artifex-{name}"
    body = script.replace(EXPORT, _MODEL.replace("ID", name)).replace("</", "<\\/")
    return (
        f'<div id="{name}" class="artifex-page"><style>{style}</style><div class="artifex-fallback">{fallback}</div>'
        f'<script type="application/json">{data}</script></div>\n<script type="module">{body}</script>'
    )


def page(body: str, title: str) -> str:
    """A whole HTML document around a fragment; it fetches nothing."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _encode(value):
    if isinstance(value, bytes):
        return {"$b64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: _encode(entry) for key, entry in value.items()}
    return value
