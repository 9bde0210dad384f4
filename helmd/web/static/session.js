// The end of the session: every tab says it and how to go on; one that has been logged in again goes on at its URL.
import { SESSION, h, icon } from "./dom.js";

// Any session of this browser, since the next one has another name; nothing is said but that there is one.
const logins = SESSION ? new BroadcastChannel("helm-logins") : null;
const listeners = new Set();
let ended = false;
let back = false;
let shown = null;

export const hasEnded = () => ended;

/** Calls `act` once the session has ended. */
export function onSessionEnd(act) {
  listeners.add(act);
}

const written = () => document.querySelector("dialog[open] :is(input, textarea, select), [data-dirty]");

/** The session is over: what is shown stays, and so does what has been written. */
export function sessionEnded() {
  const first = !ended;
  ended = true;
  say();
  if (first) {
    listeners.forEach((act) => act());
  }
}

function say() {
  const keeps = written();
  const again = h("button", { class: "helm-button helm-button--primary", type: "button", onclick: () => location.reload() });
  const apart = h("a", { class: "helm-button helm-button--primary", href: location.href, target: "_blank", rel: "noopener" });
  let [text, control] = ["Your session has ended. Log in to go on here.", again];
  again.textContent = "Log in";
  if (keeps && back) {
    text = "You are logged in again, and can send what you have written. Reload the page after that.";
    again.textContent = "Reload";
  } else if (keeps) {
    text = "Your session has ended. Log in in another tab: what you have written stays here.";
    apart.textContent = "Log in";
    control = apart;
  }
  // What is outside of an open dialog can't be reached.
  const dialog = document.querySelector("dialog[open]");
  if (shown?.isConnected && shown.closest("dialog") === dialog && shown.querySelector("p").textContent === text) {
    // Each request that is refused comes here: what is said stays, with its focus, and is not read out again.
    return;
  }
  shown?.remove();
  shown = h("div", { class: "helm-toast helm-toast--warn", role: "alert", "data-session-ended": true }, icon("lock"), h("p", { class: "helm-toast__text" }, text), control);
  if (dialog) {
    (dialog.querySelector(".helm-dialog__title") ?? dialog.firstElementChild).after(shown);
  } else {
    document.querySelector("[data-toasts]").append(shown);
  }
}

function goOn() {
  back = true;
  if (written()) {
    say();
  } else {
    location.reload();
  }
}

document.addEventListener("close", () => ended && setTimeout(() => (back ? goOn() : say())), true);
logins?.addEventListener("message", () => ended && goOn());
logins?.postMessage("");
