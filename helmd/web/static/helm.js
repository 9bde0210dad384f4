// Of every page: colours, times, live parts, keys, the palette and actions.
import "./format.js";
import "./live.js";
import "./keys.js";
import "./theme.js";

const later = {
  action: () => import("./action.js"),
  palette: () => import("./palette.js"),
  table: () => import("./table.js"),
};

for (const button of document.querySelectorAll("[data-palette]")) {
  button.hidden = false;
  button.addEventListener("click", async () => (await later.palette()).open());
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-action]");
  if (button && !button.disabled) {
    event.preventDefault();
    (await later.action()).start(button);
  }
});

if (document.querySelector("[data-table]")) {
  later.table();
}

