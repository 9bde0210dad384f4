// The page of one job: its log, from the beginning, and as it is written.
import { shownText } from "./dom.js";
import { refresh } from "./live.js";
import { resumed } from "./sse.js";

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
  for await (const { event, data } of resumed(shown.dataset.jobLog)) {
    if (event === "log") {
      add(JSON.parse(data).text);
    } else if (event === "end") {
      refresh("job");
    }
  }
}

follow();
