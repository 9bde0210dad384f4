// Access to the store of entries: requests to the API, and the live stream.
import { nextChunk } from "./sse.js";

/** An error response, with the members of its problem document. */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? body?.error ?? `the answer was ${status}`);
    this.status = status;
    this.code = body?.code ?? "";
    this.hint = body?.hint ?? "";
    this.errors = body?.errors ?? [];
  }
}

/** Requests to the API below the URL `base`. All methods throw Problem for error responses, and what fetch throws. */
export class Source {
  constructor(base) {
    this.base = base;
  }

  url(path, parameters = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== undefined && value !== null && value !== "") {
        query.set(name, value);
      }
    }
    const text = query.toString();
    return `${this.base}${path}${text ? `?${text}` : ""}`;
  }

  async get(path, parameters = {}, signal = undefined) {
    const response = await fetch(this.url(path, parameters), {
      headers: { Accept: "application/json" },
      redirect: "manual",
      signal,
    });
    return this.read(response);
  }

  async send(method, path, body = undefined) {
    const response = await fetch(this.url(path), {
      method,
      headers: { Accept: "application/json", ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
      redirect: "manual",
    });
    return this.read(response);
  }

  async read(response) {
    if (response.type === "opaqueredirect") {
      throw new Problem(401, { detail: "the session has ended", code: "no_credential", hint: "Log in again." });
    }
    const text = await response.text();
    let body = null;
    try {
      body = text ? JSON.parse(text) : null;
    } catch {
      body = null;
    }
    if (!response.ok) {
      throw new Problem(response.status, body);
    }
    return body;
  }
}

const RETRY_MS = 2000;
const PROBE_MS = 5000;
const STALE_MS = 9000;

/** The live stream of new entries. It reconnects after the last id that was received: none is lost or comes twice. */
export class Tail {
  /**
   * Callbacks: `onEntries` with new entries, `onSkipped` with the data of the event by which the server reports entries
   * that it left out, `onState` with "live", "stale" or "refused", a reason (for "refused" the error), and when data
   * was last received.
   */
  constructor(source, { onEntries, onSkipped, onState }) {
    this.source = source;
    this.onEntries = onEntries;
    this.onSkipped = onSkipped;
    this.onState = onState;
    this.lastId = null;
    this.parameters = null;
    this.aborting = null;
    this.receivedAt = Date.now();
  }

  /**
   * Follows the entries that match `parameters`, those after the id `since` first. Resolves when the id is known after
   * which the stream begins, or when the first attempt has failed.
   */
  start(parameters, since = null) {
    this.stop();
    // A copy, since each run is known by its parameters: the same ones may be followed again.
    this.parameters = { ...parameters };
    this.lastId = since;
    return new Promise((resolve) => {
      this.resolveStart = resolve;
      this.run(this.parameters);
      this.watch();
    });
  }

  stop() {
    this.parameters = null;
    clearTimeout(this.timer);
    clearInterval(this.watching);
    this.aborting?.abort();
    this.resolveStart?.();
    this.resolveStart = null;
  }

  async run(parameters) {
    while (this.parameters === parameters) {
      this.aborting = new AbortController();
      let why = "";
      try {
        await this.connection(parameters, this.aborting.signal);
      } catch (error) {
        if (this.parameters !== parameters) {
          return;
        }
        why = error instanceof Problem ? error.message : "Helm can't be reached";
        if (error instanceof Problem && error.status >= 400 && error.status < 500 && error.status !== 429) {
          this.onState("refused", error);
          this.resolveStart?.();
          return;
        }
      }
      if (this.parameters !== parameters) {
        return;
      }
      this.onState("stale", why, this.receivedAt);
      this.resolveStart?.();
      await new Promise((resolve) => {
        this.timer = setTimeout(resolve, RETRY_MS);
      });
    }
  }

  async connection(parameters, signal) {
    const since = this.lastId === null ? {} : { last_event_id: this.lastId };
    const response = await fetch(this.source.url("logs/stream", { ...parameters, ...since }), {
      headers: { Accept: "text/event-stream" },
      redirect: "manual",
      signal,
    });
    if (!response.ok || !response.body) {
      await this.source.read(response);
    }
    this.onState("live");
    this.receivedAt = Date.now();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffered = "";
    for (;;) {
      const { done, value } = await nextChunk(reader);
      if (done) {
        return;
      }
      this.receivedAt = Date.now();
      buffered += value;
      const end = buffered.lastIndexOf("\n\n");
      if (end >= 0) {
        const complete = buffered.slice(0, end);
        buffered = buffered.slice(end + 2);
        this.dispatch(complete.split("\n\n"));
      }
    }
  }

  dispatch(blocks) {
    const entries = [];
    for (const block of blocks) {
      let kind = "";
      let data = "";
      for (const line of block.split("\n")) {
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
        this.onSkipped(JSON.parse(data));
      }
    }
    if (this.resolveStart && this.lastId !== null) {
      this.resolveStart();
      this.resolveStart = null;
    }
    if (entries.length) {
      this.onEntries(entries);
    }
    this.onState("live");
  }

  /**
   * Reports the state "stale" when helmd can't be reached. After some time without data another request is made, since
   * the stream's heartbeats are rare.
   */
  watch() {
    this.watching = setInterval(async () => {
      if (Date.now() - this.receivedAt < PROBE_MS) {
        return;
      }
      const probe = new AbortController();
      const timeout = setTimeout(() => probe.abort(), 3000);
      try {
        await this.source.get("me", {}, probe.signal);
        this.receivedAt = Date.now();
      } catch (error) {
        if (error instanceof Problem && error.status === 401) {
          this.onState("refused", error);
        }
      }
      clearTimeout(timeout);
      if (Date.now() - this.receivedAt > STALE_MS && this.parameters) {
        this.onState("stale", "", this.receivedAt);
      }
    }, 1000);
  }
}
