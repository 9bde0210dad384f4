// Templates for what is made in the browser: lit-html, with Helm's policy of Trusted Types.
import { html } from "./vendor/lit-html.js";

export { html, nothing, render, svg } from "./vendor/lit-html.js";

const SPRITE = new URL("icons.svg", import.meta.url).pathname;

/** An icon as a part of a template. */
export const icon = (name) =>
  html`<svg class="helm-icon" aria-hidden="true"><use href=${`${SPRITE}#${name}`}></use></svg>`;
