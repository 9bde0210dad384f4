// Server-sent events by fetch: EventSource exposes neither heartbeats (comments) nor the HTTP status.

/** The stream failed. `status` is the HTTP status, 401 for a redirect to the login, 0 for a connection without data. */
export class StreamError extends Error {
  constructor(status) {
    super(`event stream: HTTP status ${status}`);
    this.status = status;
  }
}

/**
 * Detects a dead connection of any stream: more than two heartbeats of the slowest, those of logs and jobs
 * (`HEARTBEAT_SECONDS` of helmd/web/api/stream.py, 15 s).
 */
const IDLE_TIMEOUT_MS = 40000;

/** Resolves to the next chunk of a stream's reader. Throws StreamError after 40 s without data. */
export async function nextChunk(reader) {
  let timer = 0;
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new StreamError(0)), IDLE_TIMEOUT_MS);
  });
  try {
    return await Promise.race([reader.read(), timeout]);
  } catch (error) {
    reader.cancel(error).catch(() => {});
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Yields the events of a finite stream, as `events` does, up to its "end" event. Reconnects with backoff and
 * Last-Event-ID; a client error (4xx other than 429) ends it without an exception.
 */
export async function* eventsUntilEnd(url, signal = undefined) {
  let [lastId, wait] = ["", 500];
  while (!signal?.aborted) {
    try {
      for await (const event of events(url, { signal, lastId })) {
        lastId = event.id ?? lastId;
        wait = 500;
        yield event;
        if (event.event === "end") {
          return;
        }
      }
    } catch (error) {
      if (error.status >= 400 && error.status < 500 && error.status !== 429) {
        return;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 8000);
  }
}

/**
 * Yields the events of one connection as {event, data, id}; `id` is null where the event has none. `onData` is called
 * for everything that is received, heartbeats included. Throws StreamError, and what fetch throws.
 */
export async function* events(url, { signal, lastId = "", onData = () => {} } = {}) {
  const headers = { Accept: "text/event-stream", ...(lastId ? { "Last-Event-ID": lastId } : {}) };
  const response = await fetch(url, { signal, headers, redirect: "manual", cache: "no-store" });
  if (response.type === "opaqueredirect" || !response.ok || !response.body) {
    throw new StreamError(response.type === "opaqueredirect" ? 401 : response.status);
  }
  if (response.status === 204) {
    yield { event: "end", id: null, data: "" };
    return;
  }
  onData();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffered = "";
  for (;;) {
    const { value, done } = await nextChunk(reader);
    if (done) {
      return;
    }
    onData();
    const blocks = (buffered + value).split("\n\n");
    buffered = blocks.pop();
    for (const block of blocks) {
      const event = parseEvent(block);
      if (event) {
        yield event;
      }
    }
  }
}

/** The event of a block of lines; null for one without data and id, as a comment. */
function parseEvent(block) {
  let [event, id] = ["message", null];
  const data = [];
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    const [field, value] = at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1).replace(/^ /, "")];
    if (field === "event") {
      event = value;
    } else if (field === "data") {
      data.push(value);
    } else if (field === "id") {
      id = value;
    }
  }
  return data.length || id !== null ? { event, id, data: data.join("\n") } : null;
}
