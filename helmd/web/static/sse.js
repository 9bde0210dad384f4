// Server-sent events by fetch: unlike EventSource it shows heartbeats, statuses and the end of a session.

/** A stream that can't be had: `status` is that of HTTP, 401 where the session has ended. */
export class StreamError extends Error {
  constructor(status) {
    super(`the stream was answered ${status}`);
    this.status = status;
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
    return;
  }
  heard();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffered = "";
  for (;;) {
    const { value, done } = await reader.read();
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
