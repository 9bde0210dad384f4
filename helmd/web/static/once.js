// Logs in by a link of a single use. Its secret is in the fragment, which browsers don't send, so that no log has it;
// it is removed from the URL and sent in the body of a request.
const box = document.querySelector("[data-once]");
const text = document.querySelector("[data-once-text]");
const title = box.querySelector("h1");

function fail(sentence) {
  title.textContent = "This link does not work";
  text.textContent = sentence;
}

async function open() {
  const secret = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  if (!secret) {
    fail("It lacks its secret, or was opened already. Make another one on the machine: helmctl dashboard");
    return;
  }
  let response;
  try {
    response = await fetch(box.dataset.once, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify({ secret }),
    });
  } catch {
    fail("Helm can't be reached. Is the tunnel still open, and helmd running (helmctl status helm)?");
    return;
  }
  if (response.ok) {
    location.replace((await response.json()).location);
  } else {
    const problem = await response.json().catch(() => ({}));
    const sentence = problem.detail ?? `Helm answered ${response.status}.`;
    fail(`${sentence[0].toUpperCase()}${sentence.slice(1)}. ${problem.hint ?? ""}`);
  }
}

// A second link that is opened in the same tab changes only the fragment, which doesn't load the page.
addEventListener("hashchange", open);
open();
