// Where entries come from: pages of the API, and the tail of what is new.
import { nextChunk } from "./sse.js";

export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? body?.error ?? `the answer was ${status}`);
    this.status = status;
    this.code = body?.code ?? "";
    this.hint = body?.hint ?? "";
    this.errors = body?.errors ?? [];
  }
}

export class Source {
  constructor(base) {
    this.base = base;
  }

  url(path, parameters = {}) {
    const given = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== undefined && value !== null && value !== "") {
        given.set(name, value);
      }
    }
    const text = given.toString();
    return `${this.base}${path}${text ? `?${text}` : ""}`;
  }

  async get(path, parameters = {}, signal = undefined) {
    const answer = await fetch(this.url(path, parameters), {
      headers: { Accept: "application/json" },
      redirect: "manual",
      signal,
    });
    return this.read(answer);
  }

  async send(method, path, body = undefined) {
    const answer = await fetch(this.url(path), {
      method,
      headers: { Accept: "application/json", ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
      redirect: "manual",
    });
    return this.read(answer);
  }

  async read(answer) {
    if (answer.type === "opaqueredirect") {
      throw new Problem(401, { detail: "the session has ended", code: "no_credential", hint: "Log in again." });
    }
    const text = await answer.text();
    let body = null;
    try {
      body = text ? JSON.parse(text) : null;
    } catch {
      body = null;
    }
    if (!answer.ok) {
      throw new Problem(answer.status, body);
    }
    return body;
  }
}

const RETRY_MS = 2000;
const PROBE_MS = 5000;
const STALE_MS = 9000;

// The stream of new entries. It resumes after the last id that it has heard of, so nothing is lost or doubled.
export class Tail {
  // HEARD gets (entries), SKIPPED (what the server left out), STATE ("live", "stale", "off", "refused"; and why).
  constructor(source, { heard, skipped, state }) {
    this.source = source;
    this.heard = heard;
    this.skipped = skipped;
    this.state = state;
    this.lastId = null;
    this.wanted = null;
    this.aborting = null;
    this.heardAt = Date.now();
  }

  // Follows what PARAMETERS say. Resolves once the place is known from which on entries come.
  start(parameters, since = null) {
    this.stop();
    this.wanted = parameters;
    this.lastId = since;
    return new Promise((resolve) => {
      this.begun = resolve;
      this.run(this.wanted);
      this.watch();
    });
  }

  stop() {
    this.wanted = null;
    clearTimeout(this.timer);
    clearInterval(this.watching);
    this.aborting?.abort();
    this.begun?.();
    this.begun = null;
  }

  async run(wanted) {
    while (this.wanted === wanted) {
      this.aborting = new AbortController();
      let why = "";
      try {
        await this.connection(wanted, this.aborting.signal);
      } catch (error) {
        if (this.wanted !== wanted) {
          return;
        }
        why = error instanceof Problem ? error.message : "Helm can't be reached";
        if (error instanceof Problem && error.status >= 400 && error.status < 500 && error.status !== 429) {
          this.state("refused", error);
          this.begun?.();
          return;
        }
      }
      if (this.wanted !== wanted) {
        return;
      }
      this.state("stale", why, this.heardAt);
      this.begun?.();
      await new Promise((resolve) => {
        this.timer = setTimeout(resolve, RETRY_MS);
      });
    }
  }

  async connection(wanted, signal) {
    const since = this.lastId === null ? {} : { last_event_id: this.lastId };
    const answer = await fetch(this.source.url("logs/stream", { ...wanted, ...since }), {
      headers: { Accept: "text/event-stream" },
      redirect: "manual",
      signal,
    });
    if (!answer.ok || !answer.body) {
      await this.source.read(answer);
    }
    this.state("live");
    this.heardAt = Date.now();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await nextChunk(reader);
      if (done) {
        return;
      }
      this.heardAt = Date.now();
      rest += value;
      const end = rest.lastIndexOf("\n\n");
      if (end >= 0) {
        const whole = rest.slice(0, end);
        rest = rest.slice(end + 2);
        this.take(whole.split("\n\n"));
      }
    }
  }

  take(frames) {
    const entries = [];
    for (const frame of frames) {
      let kind = "";
      let data = "";
      for (const line of frame.split("\n")) {
        if (line.startsWith("data: ")) {
          data = line.slice(6);
        } else if (line.startsWith("event: ")) {
          kind = line.slice(7);
        } else if (line.startsWith("id: ")) {
          this.lastId = Number(line.slice(4));
        }
      }
      if (kind === "log") {
        entries.push(JSON.parse(data));
      } else if (kind === "skipped") {
        this.skipped(JSON.parse(data));
      }
    }
    if (this.begun && this.lastId !== null) {
      this.begun();
      this.begun = null;
    }
    if (entries.length) {
      this.heard(entries);
    }
    this.state("live");
  }

  // Says so when nothing has been heard for some time; silence alone may be a service without anything to say.
  watch() {
    this.watching = setInterval(async () => {
      if (Date.now() - this.heardAt < PROBE_MS) {
        return;
      }
      const asked = new AbortController();
      const late = setTimeout(() => asked.abort(), 3000);
      try {
        await this.source.get("me", {}, asked.signal);
        this.heardAt = Date.now();
      } catch (error) {
        if (error instanceof Problem && error.status === 401) {
          this.state("refused", error);
        }
      }
      clearTimeout(late);
      if (Date.now() - this.heardAt > STALE_MS && this.wanted) {
        this.state("stale", "", this.heardAt);
      }
    }, 1000);
  }
}
