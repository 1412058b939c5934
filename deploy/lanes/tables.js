// Flower's tables. Tasks: what began last comes first, and the page keeps itself up to date. Workers: the model of each.
"use strict";
window.jQuery?.(($) => {
  if (document.getElementById("workers-table")) {
    const workers = $("#workers-table").DataTable(), model = (text) => $("<div class=model>").text(text);
    workers.on("draw", () => workers.rows({ page: "current" }).every(function () {
      $(this.node()).find(".model").remove().end().children().first().append(model(this.data().model ?? ""));
    }));
  }
  if (!document.getElementById("tasks-table")) return;
  const table = $("#tasks-table").DataTable();
  if (!table.state.loaded()) table.order([table.column("[data-column=started]").index(), "desc"]).draw();
  setInterval(() => { if (!document.hidden) table.ajax.reload(null, false); }, 2000);
});
