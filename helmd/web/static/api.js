// Requests to Helm's API.
import { HOME } from "./dom.js";
import { sessionEnded } from "./session.js";

/** An error response, with the members of its problem document; `status` is 0 where helmd can't be reached. */
export class Problem extends Error {
  constructor(status, body) {
    const sentence = body.detail ?? body.error ?? body.message ?? `Helm answered ${status}`;
    super(`${sentence[0].toUpperCase()}${sentence.slice(1)}`);
    this.status = status;
    this.code = body.code ?? "";
    this.hint = body.hint ?? "";
    this.lines = body.lines ?? [];
    this.errors = body.errors ?? [];
  }
}

/**
 * Sends a request and resolves to the parsed JSON of the response. `path` is relative to /helm/, such as
 * "api/services/status"; `body` is sent as JSON. Throws Problem, and AbortError where `signal` was aborted.
 */
export async function api(method, path, body, { headers = {}, signal } = {}) {
  let response;
  try {
    response = await fetch(HOME + path, {
      method,
      signal,
      redirect: "manual",
      cache: "no-store",
      headers: {
        Accept: "application/json",
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new Problem(0, { detail: "Helm can't be reached", hint: "On the machine: systemctl --user status helmd" });
  }
  if (response.type === "opaqueredirect" || response.status === 401) {
    sessionEnded();
    throw new Problem(401, { detail: "Your session has ended", hint: "Log in, then send this again." });
  }
  const text = await response.text();
  let parsed = {};
  try {
    parsed = text ? JSON.parse(text) : {};
  } catch {
    // An error page of a proxy.
  }
  if (!response.ok) {
    throw new Problem(response.status, parsed);
  }
  return parsed;
}
