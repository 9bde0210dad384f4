// The page of the audit trail: submits the filter when it is changed. Its fields have local time, the URL has UTC.
const form = document.querySelector("[data-audit-filter]");

const local = (at) => {
  const moved = new Date(at.getTime() - at.getTimezoneOffset() * 60000);
  return moved.toISOString().slice(0, 16);
};

for (const input of form.querySelectorAll("[data-time]")) {
  const sent = form.elements[input.dataset.time];
  const at = new Date(sent.value);
  if (sent.value && !Number.isNaN(at.getTime())) {
    input.value = local(at);
  }
  input.addEventListener("change", () => {
    const chosen = new Date(input.value);
    sent.value = input.value && !Number.isNaN(chosen.getTime()) ? chosen.toISOString() : "";
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = [...new FormData(form)].filter(([, value]) => value.trim());
  const query = new URLSearchParams(fields).toString();
  location.assign(`${form.action}${query ? `?${query}` : ""}`);
});

form.addEventListener("change", (event) => {
  if (event.target.matches("select, [data-time]")) {
    form.requestSubmit();
  }
});
