// Loaded by every page. What only some pages or users need is imported on demand.
import "./format.js";
import "./live.js";
import "./keys.js";
import "./theme.js";

const load = {
  action: () => import("./action.js"),
  palette: () => import("./palette.js"),
  table: () => import("./table.js"),
};

for (const button of document.querySelectorAll("[data-palette]")) {
  button.hidden = false;
  button.addEventListener("click", async () => (await load.palette()).open());
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-action]");
  if (button && !button.disabled) {
    event.preventDefault();
    (await load.action()).start(button);
  }
});

if (document.querySelector("[data-table]")) {
  load.table();
}

