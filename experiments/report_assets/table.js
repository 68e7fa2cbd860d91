"use strict";
// Tables that sort by a click on a heading. A cell's `data-value` is what is compared; empty ones come last.
const Tables = (() => {
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent;
    return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));

  function sort(table, heading) {
    const column = heading.cellIndex;
    const now = heading.getAttribute("aria-sort");
    const up = now ? now === "descending" : !heading.dataset.down;
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return up ? compare(a, b) : compare(b, a);
    });
    body.append(...rows.map(([, row]) => row));
  }

  function sortable(table) {
    for (const heading of table.tHead.rows[0].cells) {
      heading.querySelector("button")?.addEventListener("click", () => sort(table, heading));
    }
  }

  // A table of columns {heading, html(row), value(row), text, down}; `down`: the first click sorts from the top.
  function make(columns, rows, rowClass) {
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const column of columns) {
      const heading = document.createElement("th");
      if (column.text) heading.className = "text";
      if (column.down) heading.dataset.down = "1";
      const button = document.createElement("button");
      button.textContent = column.heading;
      heading.append(button);
      head.append(heading);
    }
    const body = table.createTBody();
    for (const row of rows) {
      const line = body.insertRow();
      line.className = rowClass(row);
      for (const column of columns) {
        const cell = document.createElement(column.text ? "th" : "td");
        const shown = column.value(row);
        cell.dataset.value = shown ?? "";
        if (column.text) cell.textContent = shown;
        else cell.innerHTML = shown === null || shown === undefined ? "–" : column.html(row);
        line.append(cell);
      }
    }
    sortable(table);
    return table;
  }
  return { sortable, make };
})();
