// The page of one job: its log, from the beginning, and as it is written.
import { shownText } from "./dom.js";
import { refresh } from "./live.js";
import { events } from "./sse.js";

const MOST_LINES = 5000;
const shown = document.querySelector("[data-job-log]");
const none = document.querySelector("[data-job-none]");

function add(text) {
  const atEnd = shown.scrollHeight - shown.scrollTop - shown.clientHeight < 24;
  shown.hidden = false;
  none.hidden = true;
  shown.append(`${shownText(text)}\n`);
  while (shown.childNodes.length > MOST_LINES) {
    shown.firstChild.remove();
  }
  if (atEnd) {
    shown.scrollTop = shown.scrollHeight;
  }
}

async function follow() {
  let lastId = "";
  let wait = 500;
  for (;;) {
    try {
      for await (const { event, id, data } of events(shown.dataset.jobLog, { lastId })) {
        lastId = id ?? lastId;
        wait = 500;
        if (event === "log") {
          add(JSON.parse(data).text);
        } else if (event === "end") {
          refresh("job");
          return;
        }
      }
    } catch (error) {
      if (error.status === 401 || error.status === 404) {
        return;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 8000);
  }
}

follow();
