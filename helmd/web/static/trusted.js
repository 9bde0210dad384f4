// The only Trusted Types policy. It may pass markup unchanged, since that comes only from the server's templates, which
// escape.
const unchanged = { createHTML: (text) => text };

export const policy = globalThis.trustedTypes?.createPolicy("helm", unchanged) ?? unchanged;

/** Parses markup that the server has rendered into a DocumentFragment. */
export function fragment(text) {
  const template = document.createElement("template");
  template.innerHTML = policy.createHTML(text);
  return template.content;
}
