// Handles the end of the session: shows a notice with a way to log in, and reloads the page after a login in any tab of
// the browser, unless that would discard unsaved input.
import { SESSION, h, icon } from "./dom.js";

// Every page with a session announces itself here. The channel has no session in its name, since the next login makes
// a new session, and its messages no content.
const logins = SESSION ? new BroadcastChannel("helm-logins") : null;
const listeners = new Set();
let ended = false;
let loggedIn = false;
let notice = null;

export const hasEnded = () => ended;

/** Registers a function that is called when the session has ended. */
export function onSessionEnd(listener) {
  listeners.add(listener);
}

const hasUnsavedInput = () => document.querySelector("dialog[open] :is(input, textarea, select), [data-dirty]");

/** Reports that the session has ended, as often as the caller likes. The page's content and its input stay. */
export function sessionEnded() {
  const first = !ended;
  ended = true;
  showNotice();
  if (first) {
    listeners.forEach((listener) => listener());
  }
}

function showNotice() {
  const unsaved = hasUnsavedInput();
  const reload = h("button", { class: "helm-button helm-button--primary", type: "button", onclick: () => location.reload() });
  const login = h("a", { class: "helm-button helm-button--primary", href: location.href, target: "_blank", rel: "noopener" });
  let [text, control] = ["Your session has ended. Log in to go on here.", reload];
  reload.textContent = "Log in";
  if (unsaved && loggedIn) {
    text = "You are logged in again, and can send what you have written. Reload the page after that.";
    reload.textContent = "Reload";
  } else if (unsaved) {
    text = "Your session has ended. Log in in another tab: what you have written stays here.";
    login.textContent = "Log in";
    control = login;
  }
  // All outside of a modal dialog is inert.
  const dialog = document.querySelector("dialog[open]");
  if (notice?.isConnected && notice.closest("dialog") === dialog && notice.querySelector("p").textContent === text) {
    // Called for each refused request: replacing the alert would lose its focus and announce it again.
    return;
  }
  notice?.remove();
  notice = h("div", { class: "helm-toast helm-toast--warn", role: "alert", "data-session-ended": true }, icon("lock"), h("p", { class: "helm-toast__text" }, text), control);
  if (dialog) {
    (dialog.querySelector(".helm-dialog__title") ?? dialog.firstElementChild).after(notice);
  } else {
    document.querySelector("[data-toasts]").append(notice);
  }
}

function onLogin() {
  loggedIn = true;
  if (hasUnsavedInput()) {
    showNotice();
  } else {
    location.reload();
  }
}

document.addEventListener("close", () => ended && setTimeout(() => (loggedIn ? onLogin() : showNotice())), true);
logins?.addEventListener("message", () => ended && onLogin());
logins?.postMessage("");
