// The colour scheme: that of the system, light, or dark.
const THEMES = ["system", "light", "dark"];
const NAMES = { system: "as the system", light: "light", dark: "dark" };
const root = document.documentElement;
const button = document.querySelector("[data-theme-switch]");

function show() {
  const theme = root.dataset.theme ?? "system";
  button.dataset.now = theme;
  const name = `Colours: ${NAMES[theme] ?? theme}`;
  button.title = name;
  button.querySelector("[data-theme-name]").textContent = name;
}

/** Switches to the next colour scheme and stores it in a cookie, by which the server renders the next page. */
export function nextTheme() {
  const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
  if (next === "system") {
    delete root.dataset.theme;
  } else {
    root.dataset.theme = next;
  }
  const age = next === "system" ? 0 : 31536000;
  document.cookie = `helm_theme=${next}; Path=/helm/; SameSite=Lax; Max-Age=${age}`;
  show();
}

if (button) {
  button.hidden = false;
  button.addEventListener("click", nextTheme);
  show();
  // The gateway's own switch changes the attribute, too.
  new MutationObserver(show).observe(root, { attributeFilter: ["data-theme"] });
}
