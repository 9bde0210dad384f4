// Server-sent events by fetch: unlike EventSource it shows heartbeats, statuses and the end of a session.

/** A stream that can't be had: `status` is that of HTTP, 401 where the session has ended. */
export class StreamError extends Error {
  constructor(status) {
    super(`the stream was answered ${status}`);
    this.status = status;
  }
}

/** In which the server sends something at least twice (`HEARTBEAT_SECONDS`). */
const SILENT_MS = 40000;

/** What READER gets next. A connection on which nothing comes any more is given up: it is an error. */
export async function nextChunk(reader) {
  let timer = 0;
  const silence = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new StreamError(0)), SILENT_MS);
  });
  try {
    return await Promise.race([reader.read(), silence]);
  } catch (error) {
    reader.cancel(error).catch(() => {});
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** The events of a stream that has an end, over as many connections as it takes. None more when it can't be had. */
export async function* resumed(url, signal = undefined) {
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

/** The events of a stream: {event, data, id}. `heard` is called with every arrival of bytes. */
export async function* events(url, { signal, lastId = "", heard = () => {} } = {}) {
  const headers = { Accept: "text/event-stream", ...(lastId ? { "Last-Event-ID": lastId } : {}) };
  const answer = await fetch(url, { signal, headers, redirect: "manual", cache: "no-store" });
  if (answer.type === "opaqueredirect" || !answer.ok || !answer.body) {
    throw new StreamError(answer.type === "opaqueredirect" ? 401 : answer.status);
  }
  if (answer.status === 204) {
    yield { event: "end", id: null, data: "" };
    return;
  }
  heard();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffered = "";
  for (;;) {
    const { value, done } = await nextChunk(reader);
    if (done) {
      return;
    }
    heard();
    const frames = (buffered + value).split("\n\n");
    buffered = frames.pop();
    for (const frame of frames) {
      const event = parsed(frame);
      if (event) {
        yield event;
      }
    }
  }
}

function parsed(frame) {
  let [event, id] = ["message", null];
  const data = [];
  for (const line of frame.split("\n")) {
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
