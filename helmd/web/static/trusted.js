// The one policy of Trusted Types. Markup is made by the server's templates alone, which escape.
const plain = { createHTML: (text) => text };

export const policy = globalThis.trustedTypes?.createPolicy("helm", plain) ?? plain;

/** What the server rendered, as nodes. */
export function fragment(text) {
  const template = document.createElement("template");
  template.innerHTML = policy.createHTML(text);
  return template.content;
}
