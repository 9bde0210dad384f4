// Of every page: the switch of colours, exact local times, and parts that are kept up to date.
const REFRESH_MS = 4000;
const STALE_MS = 10000;
const THEMES = ["system", "light", "dark"];
const NAMES = { system: "as the system", light: "light", dark: "dark" };
// Markup comes from the server's templates alone, which escape what they show.
const policy = globalThis.trustedTypes?.createPolicy("helm", { createHTML: (html) => html }) ?? {
  createHTML: (html) => html,
};

const root = document.documentElement;
const button = document.querySelector("[data-theme-switch]");

function showTheme() {
  const theme = root.dataset.theme ?? "system";
  button.dataset.now = theme;
  const name = `Colours: ${NAMES[theme] ?? theme}`;
  button.title = name;
  button.querySelector("[data-theme-name]").textContent = name;
}

if (button) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
    if (next === "system") {
      delete root.dataset.theme;
    } else {
      root.dataset.theme = next;
    }
    const age = next === "system" ? 0 : 31536000;
    document.cookie = `helm_theme=${next}; Path=/helm/; SameSite=Lax; Max-Age=${age}`;
    showTheme();
  });
  showTheme();
  // The gateway has a switch of its own.
  new MutationObserver(showTheme).observe(root, { attributeFilter: ["data-theme"] });
}

function localTimes(within) {
  for (const time of within.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    time.title = at.toLocaleString();
    if ("clock" in time.dataset) {
      time.textContent = at.toLocaleTimeString();
    }
  }
}

localTimes(document);

const live = document.querySelector("[data-live]");

if (live) {
  const text = live.querySelector("[data-live-text]");
  let heard = Date.now();
  live.hidden = false;

  const show = () => {
    const stale = Date.now() - heard > STALE_MS;
    live.classList.toggle("helm-live--stale", stale);
    // What is no longer known to be true is not shown in green.
    document.body.classList.toggle("helm--stale", stale);
    text.textContent = stale ? `stale since ${new Date(heard).toLocaleTimeString()}` : "live";
  };

  const refresh = async () => {
    const answer = await fetch(live.dataset.live, { headers: { Accept: "text/html" }, redirect: "manual" });
    if (answer.type === "opaqueredirect" || answer.status === 401) {
      // The session has ended.
      location.reload();
      return;
    }
    if (!answer.ok) {
      return;
    }
    const template = document.createElement("template");
    template.innerHTML = policy.createHTML(await answer.text());
    const fresh = template.content.querySelector("[data-live-part]");
    const shown = document.querySelector("[data-live-part]");
    if (fresh && shown) {
      localTimes(template.content);
      const focused = document.activeElement?.closest("[data-service]")?.dataset.service;
      if (fresh.innerHTML !== shown.innerHTML) {
        shown.replaceWith(fresh);
      }
      if (focused) {
        document.querySelector(`[data-service="${CSS.escape(focused)}"] a`)?.focus();
      }
      document.title = `${fresh.querySelector("h1").textContent} · Helm`;
      heard = Date.now();
    }
  };

  const turn = async () => {
    if (!document.hidden) {
      await refresh().catch(() => {});
    }
    show();
    setTimeout(turn, REFRESH_MS);
  };
  document.addEventListener("visibilitychange", () => document.hidden || refresh().catch(() => {}).then(show));
  setTimeout(turn, REFRESH_MS);
}
