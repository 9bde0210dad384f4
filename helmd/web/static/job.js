// The page of one job: follows its log.
import { printableText } from "./dom.js";
import { refresh } from "./live.js";
import { eventsUntilEnd } from "./sse.js";

const MAX_LINES = 5000;
const log = document.querySelector("[data-job-log]");
const empty = document.querySelector("[data-job-none]");

function append(text) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  log.hidden = false;
  empty.hidden = true;
  log.append(`${printableText(text)}\n`);
  while (log.childNodes.length > MAX_LINES) {
    log.firstChild.remove();
  }
  if (atEnd) {
    log.scrollTop = log.scrollHeight;
  }
}

async function follow() {
  for await (const { event, data } of eventsUntilEnd(log.dataset.jobLog)) {
    if (event === "log") {
      append(JSON.parse(data).text);
    } else if (event === "end") {
      refresh("job");
    }
  }
}

follow();
