// One Tab stop for a whole table, and arrows from cell to cell, as in a grid: sixty dashes with a reason each would be
// sixty stops before whatever follows the table.
const TableKeys = {
  MANY: 12,
  start(table) {
    table.setAttribute("role", "grid");
    table.addEventListener("keydown", (event) => this.move(table, event));
    table.addEventListener("focusin", (event) => this.hold(table, event.target));
    this.fit(table);
  },
  // Tables of the page that hold many notes.
  startAll() {
    for (const table of document.querySelectorAll(".scroll table")) {
      if (table.getAttribute("role") !== "grid" && table.querySelectorAll("[data-tip][tabindex]").length > this.MANY) this.start(table);
    }
  },
  // What of a cell, or of a row, can have the focus: the links, buttons and notes in it, else the cell itself.
  stopsOf(cell) { const own = [...cell.querySelectorAll("a, button, [tabindex]")]; return own.length ? own : [cell]; },
  stops(row) { return [...row.cells].flatMap((cell) => this.stopsOf(cell)); },
  // Once rows were made: the name of the first row is the one that Tab reaches.
  fit(table) {
    for (const row of table.rows) for (const stop of this.stops(row)) stop.tabIndex = -1;
    const first = table.querySelector("tbody th a") ?? (table.rows[0] && this.stops(table.rows[0])[0]);
    if (first) first.tabIndex = 0;
  },
  hold(table, target) {
    for (const other of table.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    target.tabIndex = 0;
  },
  move(table, event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const row = event.target.closest("tr");
    if (!row) return;
    const stops = this.stops(row), at = stops.indexOf(event.target);
    const along = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: stops.length - 1 }[event.key];
    const across = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    let next = along === undefined ? null : stops[along];
    if (across !== undefined) {
      const other = table.rows[row.rowIndex + across], place = event.target.closest("td, th").cellIndex;
      this.column = row.cells.length > 1 ? place : this.column ?? place;  // a row of one cell, a group's title, keeps it
      next = other && this.stopsOf(other.cells[Math.min(this.column, other.cells.length - 1)])[0];
    }
    if (!next) return;
    event.preventDefault();
    next.focus();
  },
};
