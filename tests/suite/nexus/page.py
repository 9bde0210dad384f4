"""What the gateway adds to each page of a service: stylesheets, four scripts without nonce, a panel beside the body."""

from __future__ import annotations

import json
import re

GLOBAL_CSS = "/static/css/global.css"
PANEL_CSS = "/static/css/side-panel.css"
_VERSION = "1.0"
_SIZE = 150_000

_COLLAPSED = """
(function () {
  if (localStorage.getItem("sidebar-collapsed") === "true") {
    document.documentElement.classList.add("sidebar-collapsed");
  }
})();
"""

_BACKDROP = """
document.addEventListener("DOMContentLoaded", function () {
  const canvas = document.createElement("canvas");
  canvas.id = "matrix-rain";
  document.body.prepend(canvas);
  const pen = canvas.getContext("2d");
  function fit() {
    canvas.width = innerWidth;
    canvas.height = innerHeight;
  }
  fit();
  addEventListener("resize", fit);
  (function draw() {
    if (document.documentElement.dataset.colorTheme === "matrix") {
      pen.fillStyle = "#0f0";
      pen.fillText("1", Math.random() * canvas.width, Math.random() * canvas.height);
    }
    requestAnimationFrame(draw);
  })();
});
"""

_BEES = """
document.addEventListener("DOMContentLoaded", function () {
  const hive = document.createElement("div");
  hive.id = "bee-container";
  document.body.prepend(hive);
  setInterval(function () {
    if (document.documentElement.dataset.colorTheme !== "bee") return;
    const bee = document.createElement("div");
    bee.className = "bee";
    bee.textContent = "bee";
    bee.style.top = Math.random() * 100 + "vh";
    hive.replaceChildren(bee);
  }, 4000);
});
"""

_THEME = """
async function saveTheme(theme) {
  document.documentElement.setAttribute("data-theme", theme);
  const saved = await fetch("/codex/api/my/settings", {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    credentials: "same-origin",
    body: JSON.stringify({ theme_preference: theme }),
  });
  if (saved.ok) await fetch("/api/invalidate-cache", { method: "POST", credentials: "same-origin" });
}
document.addEventListener("DOMContentLoaded", function () {
  const panel = document.getElementById("side-panel");
  if (localStorage.getItem("sidebar-collapsed") === "true") panel.classList.add("collapsed");
  requestAnimationFrame(() => document.documentElement.classList.remove("sidebar-collapsed"));
  document.getElementById("theme-toggle-btn").addEventListener("click", function () {
    saveTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  });
  document.getElementById("sidebar-toggle").addEventListener("click", function () {
    localStorage.setItem("sidebar-collapsed", panel.classList.toggle("collapsed"));
  });
});
"""

_GREETING = """
document.getElementById("side-panel").title = "Logged in as " + USER;
"""

_LINKS = f"""<link rel="stylesheet" href="{GLOBAL_CSS}?v={_VERSION}">\
<link rel="stylesheet" href="{PANEL_CSS}?v={_VERSION}">"""
_HEAD = _LINKS + "".join(f"<script>{script}</script>" for script in (_COLLAPSED, _BACKDROP, _BEES))

PANEL_STYLES = """\
.hivematrix-layout { display: flex; min-height: 100vh; }
.hivematrix-side-panel { position: fixed; top: 0; left: 0; z-index: 1000; width: 200px; height: 100vh; }
.hivematrix-side-panel.collapsed { width: 60px; }
.hivematrix-content { flex: 1; margin-left: 200px; padding: 2rem; min-height: 100vh; }
#matrix-rain { position: fixed; inset: 0; z-index: -1; pointer-events: none; }
#bee-container { position: fixed; inset: 0; overflow: hidden; pointer-events: none; }
@media (max-width: 768px) {
  .hivematrix-side-panel { width: 64px; overflow: hidden; }
  .hivematrix-content { margin-left: 64px; }
}
"""


def _panel(service: str) -> str:
    return f"""<div class="hivematrix-side-panel" id="side-panel">\
<button class="side-panel__toggle" id="sidebar-toggle" aria-label="Toggle sidebar">=</button>\
<nav class="side-panel__nav"><ul class="side-panel__list"><li class="side-panel__item side-panel__item--active">\
<a class="side-panel__link" href="/{service}/">{service}</a></li></ul></nav>\
<a class="side-panel__link" href="/logout">Log out</a>\
<button class="theme-toggle" id="theme-toggle-btn" aria-label="Toggle theme">Theme</button></div>"""


def decorated(page: str, service: str, user: str = "") -> str:
    """Return the page of `service` as the gateway passes it on; parts that it lacks are not made up.

    With `user`, a script that differs by user comes along, which the real gateway has not got.
    """
    greeting = f"<script>{_GREETING.replace('USER', json.dumps(user).replace('<', ''))}</script>" if user else ""
    page = re.sub(
        r"<html\b([^>]*)>",
        lambda found: f'<html{_without_themes(found[1])} data-theme="light" data-color-theme="purple">',
        page,
        count=1,
        flags=re.I,
    )
    page = re.sub(r"</head\s*>", lambda found: _HEAD + found[0], page, count=1, flags=re.I)
    page = re.sub(
        r"<body\b[^>]*>",
        lambda found: f'{found[0]}<div class="hivematrix-layout">{_panel(service)}<div class="hivematrix-content">',
        page,
        count=1,
        flags=re.I,
    )
    return re.sub(
        r"</body\s*>",
        lambda found: f"</div></div><script>{_THEME}</script>{greeting}{found[0]}",
        page,
        count=1,
        flags=re.I,
    )


def _without_themes(attributes: str) -> str:
    return re.sub(r"""\sdata-(color-)?theme=("[^"]*"|'[^']*'|[^\s>]*)""", "", attributes)


_ELEMENTS = """\
@import url('https://fonts.googleapis.com/css2?family=Inter:wght@400;700&display=swap');
:root { --color-bg-primary: #f8fafc; --color-text-primary: #0f172a; --color-primary: #6366f1; }
[data-theme="dark"] { --color-bg-primary: #0f172a; --color-text-primary: #f8fafc; }
* { margin: 0; padding: 0; line-height: 1.6; }
body { font-family: 'Inter', sans-serif; background: var(--color-bg-primary); color: var(--color-text-primary); }
main { width: 100%; margin: 0 auto; max-width: 1200px; }
h1, h2, h3, h4, h5, h6 { font-weight: 600; margin-bottom: 1rem; }
p { margin-bottom: 1rem; }
a { color: var(--color-primary); text-decoration: none; }
a:hover { text-decoration: underline; }
input, select, textarea { width: 100%; padding: 0.75rem; outline: 1px solid #cbd5e1; }
textarea { min-height: 120px; }
label { display: block; margin-bottom: 0.5rem; font-weight: 500; }
table { width: 100%; table-layout: fixed; background: #fff; }
table thead { background: #f1f5f9; }
table th, table td { padding: 1rem; text-align: left; box-shadow: 0 1px #e2e8f0; }
table tbody tr:hover { background: #f8fafc; }
table td a { font-weight: 500; }
button:focus-visible, a:focus-visible, input:focus-visible { outline: 2px solid var(--color-primary); }
select { appearance: none; cursor: pointer; }
select option { background: #fff; }
"""


def global_styles() -> str:
    """Return the stylesheet for all pages: not in a layer, with bare element selectors, and rules for 150 kB."""
    lines = [_ELEMENTS]
    length, number = len(_ELEMENTS), 0
    while length < _SIZE:
        lines.append(f".u-{number} {{ margin: {number % 64}px; padding: {number % 32}px !important; }}\n")
        length, number = length + len(lines[-1]), number + 1
    return "".join(lines)
