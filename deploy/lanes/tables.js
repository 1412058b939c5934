// Flower's page of tasks: what began last comes first, and the page keeps itself up to date.
"use strict";
window.jQuery?.(($) => {
  if (!document.getElementById("tasks-table")) return;
  const table = $("#tasks-table").DataTable();
  if (!table.state.loaded()) table.order([table.column("[data-column=started]").index(), "desc"]).draw();
  setInterval(() => { if (!document.hidden) table.ajax.reload(null, false); }, 2000);
});
