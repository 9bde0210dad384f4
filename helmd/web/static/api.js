// Asking Helm's API.
import { HOME } from "./dom.js";
import { sessionEnded } from "./session.js";

/** A reply that is an error: its problem document. */
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
 * The JSON of a reply. `path` is below /helm/, as "api/services/status". Throws Problem for errors, also where helmd can't
 * be reached (status 0).
 */
export async function api(method, path, body, { headers = {}, signal } = {}) {
  let answer;
  try {
    answer = await fetch(HOME + path, {
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
  if (answer.type === "opaqueredirect" || answer.status === 401) {
    sessionEnded();
    throw new Problem(401, { detail: "Your session has ended", hint: "Log in, then send this again." });
  }
  const text = await answer.text();
  let parsed = {};
  try {
    parsed = text ? JSON.parse(text) : {};
  } catch {
    // What a proxy says in its own words.
  }
  if (!answer.ok) {
    throw new Problem(answer.status, parsed);
  }
  return parsed;
}
