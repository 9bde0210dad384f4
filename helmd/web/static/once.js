// Takes the secret out of the URL and sends it, once. It never goes to the server as part of a URL.
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
  let answer;
  try {
    answer = await fetch(box.dataset.once, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify({ secret }),
    });
  } catch {
    fail("Helm can't be reached. Is the tunnel still open, and helmd running (helmctl status helm)?");
    return;
  }
  if (answer.ok) {
    location.replace((await answer.json()).location);
  } else {
    const problem = await answer.json().catch(() => ({}));
    const sentence = problem.detail ?? `Helm answered ${answer.status}.`;
    fail(`${sentence[0].toUpperCase()}${sentence.slice(1)}. ${problem.hint ?? ""}`);
  }
}

// Another link in the same tab differs in its fragment alone, so the page is not loaded again.
addEventListener("hashchange", open);
open();
