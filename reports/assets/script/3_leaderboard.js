// The leaderboard: one file of numbers in, one table out. Sort, filters and columns live in the address (#...).
// Where a field stands in a row and in a value is told by the block itself: ROW.model, CELL.value and so on.
let ROW = {}, CELL = {};
const STEP = 100;

function places(names) { return Object.fromEntries(names.map((name, place) => [name, place])); }

// What groups are called in the address: as on the page, with a number where several are called the same. Their places
// would not do, for they change with the results.
function namesOf(groups) {
  const met = {};
  return groups.map(({ title }) => {
    met[title] = (met[title] ?? 0) + 1;
    return met[title] > 1 ? `${title} (${met[title]})` : title;
  });
}

class Leaderboard {
  constructor(node) {
    this.node = node;
    Object.assign(this, Data.got.rows);
    ROW = places(this.rowFields);
    CELL = places(this.cellFields);
    this.text = (index) => this.strings[index];
    this.slug = node.dataset.suite;
    node.addEventListener("click", (event) => { if (event.target.closest?.("tbody th a")) this.remember(); });
    this.groupNames = namesOf(this.groups);
    this.columnAt = Object.fromEntries(this.columns.map((column, index) => [column.key, index]));
    this.axes = this.makeAxes();
    this.search = this.rows.map((row) => this.searchText(row));
    this.state = this.initial();
    this.limit = STEP;
    this.listeners = [];
    this.visible = [];
    this.readAddress();
    this.build();
    this.render();
    window.addEventListener("hashchange", () => {
      if (this.written === location.hash) return;
      this.state = this.initial();
      this.readAddress();
      this.syncControls();
      this.render();
    });
    window.addEventListener("beforeprint", () => { this.limit = Math.min(this.rows.length, 2000); this.render(); });
    window.addEventListener("afterprint", () => { this.limit = STEP; this.render(); });
  }

  // ---- state and address ----
  initial() {
    const filled = this.columns.find((column) => column.filled && column.better !== "none");
    // The speed-up is paired and tight, so that it orders rows where latencies leave their order open.
    const sort = ["speedup", "latency_ms"].find((key) => this.columns[this.columnAt[key]]?.filled) ?? filled?.key ?? "model";
    return {
      sort, descending: this.columns[this.columnAt[sort]]?.better === "higher", query: "", hidden: {},
      shown: this.columns.filter((column) => column.show).map((column) => column.key), extra: ["rank", "pareto", "status"],
    };
  }

  readAddress() {
    const parts = new URLSearchParams(location.hash.slice(1));
    const known = (key) => key in this.columnAt || ["model", "status", "pareto"].includes(key);
    if (known(parts.get("sort"))) {
      this.state.sort = parts.get("sort");
      this.state.descending = parts.get("order") === "down";
    }
    this.state.query = parts.get("find") ?? "";
    if (parts.has("columns")) {
      const keys = parts.get("columns").split(",");
      this.state.shown = this.columns.map((column) => column.key).filter((key) => keys.includes(key));
      this.state.extra = ["rank", "pareto", "status"].filter((key) => keys.includes(key));
    }
    for (const axis of this.axes) {
      const values = parts.getAll("not-" + axis.key).filter((value) => axis.values.has(value));
      if (values.length) this.state.hidden[axis.key] = new Set(values);
    }
  }

  writeAddress() {
    const first = this.initial(), parts = Address.parts;
    for (const name of [...parts.keys()]) if (["sort", "order", "find", "columns"].includes(name) || name.startsWith("not-")) parts.delete(name);
    if (this.state.sort !== first.sort || this.state.descending !== first.descending) {
      parts.set("sort", this.state.sort);
      parts.set("order", this.state.descending ? "down" : "up");
    }
    if (this.state.query) parts.set("find", this.state.query);
    const columns = [...this.state.extra, ...this.state.shown].join(",");
    if (columns !== [...first.extra, ...first.shown].join(",")) parts.set("columns", columns);
    for (const axis of this.axes) for (const value of this.state.hidden[axis.key] ?? []) parts.append("not-" + axis.key, value);
    const text = parts.toString();
    this.written = text ? "#" + text : "";
    if (location.hash !== this.written) history.replaceState(null, "", this.written || location.pathname + location.search);
  }

  // ---- what can be filtered ----
  makeAxes() {
    const axes = [
      { key: "model", title: "Model", of: (row) => this.text(row[ROW.model]) },
      { key: "method", title: "Method", of: (row) => this.text(row[ROW.method]) },
    ];
    this.axisTitles.forEach(([key, title], place) => axes.push({ key, title, of: (row) => this.groups[row[ROW.group]].parts[place] }));
    axes.push({ key: "status", title: "Status", of: (row) => this.text(row[ROW.status]) });
    for (const axis of axes) {
      axis.values = new Map();
      for (const row of this.rows) axis.values.set(axis.of(row), (axis.values.get(axis.of(row)) ?? 0) + 1);
    }
    return axes.filter((axis) => axis.values.size > 1);
  }

  searchText(row) {
    const said = ["model", "method", "setting", "head", "against", "status", "reason"].map((name) => this.text(row[ROW[name]]));
    return [...said, this.groups[row[ROW.group]].title].join(" ").toLowerCase();
  }

  matching() {
    const words = this.state.query.toLowerCase().split(/\s+/).filter(Boolean);
    const hidden = this.axes.filter((axis) => this.state.hidden[axis.key]?.size);
    const kept = [];
    this.rows.forEach((row, index) => {
      if (words.every((word) => this.search[index].includes(word)) && hidden.every((axis) => !this.state.hidden[axis.key].has(axis.of(row)))) kept.push(row);
    });
    return kept;
  }

  cell(row, key) { return row[ROW.cells][this.columnAt[key]]; }

  // Groups stand in their own order; inside a group the sort decides, and rows without a value come last either way.
  sorted(rows) {
    const { sort, descending } = this.state, sign = descending ? -1 : 1;
    const value = sort in this.columnAt
      ? (row) => { const cell = this.cell(row, sort); return Array.isArray(cell) && this.text(row[ROW.status]) !== "disturbed" ? cell[CELL.value] : null; }
      : sort === "status" ? (row) => this.text(row[ROW.status])
      : sort === "pareto" ? (row) => ["front", "plausible", "dominated", ""].indexOf(this.text(row[ROW.pareto]))
      : (row) => this.text(row[ROW.model]) + " " + this.label(row);
    const keyed = rows.map((row, place) => ({ row, place, value: value(row) }));
    keyed.sort((a, b) => {
      if (a.row[ROW.group] !== b.row[ROW.group]) return a.row[ROW.group] - b.row[ROW.group];
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.place - b.place;
      if (a.value !== b.value) return sign * (typeof a.value === "string" ? a.value.localeCompare(b.value, "en", { numeric: true }) : a.value - b.value);
      return a.place - b.place;
    });
    return keyed.map((item) => item.row);
  }

  label(row) { return this.text(row[ROW.full]); }
  scores() { return [...new Set(this.groups.map((group) => group.score?.title).filter(Boolean))].join(" or ") || "score"; }

  // ---- how a number is written: the digits come with it ----
  plain(value, places) { return plainNumber(value, places); }

  written_value(cell, column) {
    const text = this.plain(cell[CELL.value] / column.factor, cell[CELL.places]);
    const half = this.half(cell);
    return half ? [text, ` ± ${this.plain(half / column.factor, cell[CELL.places])}`] : [text, ""];
  }

  half(cell) {
    if (cell[CELL.low] === null || cell[CELL.low] === undefined || cell[CELL.high] === null || cell[CELL.high] === undefined) return null;
    return Math.max(cell[CELL.value] - cell[CELL.low], cell[CELL.high] - cell[CELL.value], 0);
  }

  rankText(cell) {
    if (!Array.isArray(cell) || !cell[CELL.rankLow]) return "";
    return cell[CELL.rankLow] === cell[CELL.rankHigh] ? String(cell[CELL.rankLow]) : `${cell[CELL.rankLow]}\u2013${cell[CELL.rankHigh]}`;
  }

  note(cell, column) {
    const [kind] = this.provenances[cell[CELL.provenance]];
    const lines = [`${column.title}: ${cell[CELL.value]} ${column.raw}`, kind];
    if (this.half(cell) !== null) lines.push(`95 % interval ${cell[CELL.low]} to ${cell[CELL.high]}`);
    if (cell[CELL.count]) lines[1] += `, ${cell[CELL.count]} independent replicates`;
    if (this.rankText(cell)) lines.push(`rank ${this.rankText(cell)} among comparable rows`);
    if (cell[CELL.note] !== null && cell[CELL.note] !== undefined) lines.push(this.text(cell[CELL.note]));
    return lines.join("\n");
  }

  // ---- drawing ----
  build() {
    this.controls = this.node.querySelector(".bar-of-controls");
    this.controls.replaceChildren(this.searchBox(), ...this.axes.map((axis) => this.filterMenu(axis)), this.columnMenu(), this.exportMenu());
    this.reset = el("button", { type: "button", class: "quiet", onclick: () => { this.state = this.initial(); this.syncControls(); this.changed(); } }, "Reset");
    this.controls.append(this.reset);
    this.controls.hidden = false;
    this.line = this.node.querySelector(".status-line");
    this.table = this.node.querySelector(".board table");
    this.moreButton = el("button", { type: "button", onclick: () => { this.limit += STEP * 5; this.render(); } }, "Show more rows");
    this.more = this.node.querySelector(".more");
    this.more.append(this.moreButton);
    TableKeys.start(this.table);
  }

  changed() { this.limit = STEP; this.writeAddress(); this.render(); }

  searchBox() {
    this.box = el("input", { type: "search", placeholder: "Find model, method, setting", "aria-label": "Find rows by text", value: this.state.query });
    this.box.addEventListener("input", () => { this.state.query = this.box.value; this.changed(); });
    return this.box;
  }

  filterMenu(axis) {
    const list = el("div");
    axis.boxes = [...axis.values].sort((a, b) => a[0].localeCompare(b[0], "en", { numeric: true })).map(([value, count]) => {
      const box = el("input", { type: "checkbox", value });
      box.addEventListener("change", () => {
        const hidden = (this.state.hidden[axis.key] ??= new Set());
        if (box.checked) hidden.delete(value); else hidden.add(value);
        this.markMenus();
        this.changed();
      });
      list.append(el("label", {}, box, el("span", {}, value), el("span", { class: "soft" }, String(count))));
      return box;
    });
    const only = (checked) => () => {
      this.state.hidden[axis.key] = checked ? new Set() : new Set(axis.values.keys());
      this.syncControls();
      this.changed();
    };
    if (axis.boxes.length > MANY) list.prepend(typeIn(axis.boxes.map((box) => [box.parentElement, box.value]), "Find in " + axis.title));
    list.prepend(el("div", {}, el("button", { type: "button", class: "quiet", onclick: only(true) }, "All"), " ", el("button", { type: "button", class: "quiet", onclick: only(false) }, "None")));
    axis.menu = el("details", { class: "menu", "data-axis": axis.key }, el("summary", {}, axis.title), list);
    return axis.menu;
  }

  columnMenu() {
    const list = el("div");
    this.columnBoxes = [];
    const add = (key, title, set) => {
      const box = el("input", { type: "checkbox", value: key });
      box.addEventListener("change", () => {
        this.state[set] = (set === "extra" ? ["rank", "pareto", "status"] : this.columns.map((column) => column.key))
          .filter((name) => (name === key ? box.checked : this.state[set].includes(name)));
        this.changed();
      });
      this.columnBoxes.push([box, set]);
      list.append(el("label", {}, box, title));
    };
    list.append(el("h4", {}, "standing"));
    add("rank", "Rank", "extra");
    add("pareto", "Pareto", "extra");
    add("status", "Status", "extra");
    for (const section of new Set(this.columns.map((column) => column.section))) {
      list.append(el("h4", {}, section));
      for (const column of this.columns.filter((item) => item.section === section)) add(column.key, column.title + (column.filled ? "" : " (no values)"), "shown");
    }
    list.prepend(typeIn(this.columnBoxes.map(([box]) => [box.parentElement, box.parentElement.textContent]), "Find a column"));
    return el("details", { class: "menu" }, el("summary", {}, "Columns"), list);
  }

  exportMenu() {
    const button = (name, make) => el("button", { type: "button", class: "quiet", "data-export": name, onclick: () => make.call(this) }, name);
    return el("details", { class: "menu right" }, el("summary", {}, "Export"), el("div", {},
      el("p", { class: "soft" }, "Exactly the rows and columns shown, all pages."),
      button("CSV", this.exportCsv), " ", button("JSON", this.exportJson), " ", button("Markdown", this.exportMarkdown), " ", button("LaTeX", this.exportLatex)));
  }

  syncControls() {
    this.box.value = this.state.query;
    this.markMenus();
  }

  markMenus() {
    for (const axis of this.axes) {
      const hidden = this.state.hidden[axis.key] ?? new Set();
      axis.boxes.forEach((box) => { box.checked = !hidden.has(box.value); });
      axis.menu.classList.toggle("on", hidden.size > 0);
      axis.menu.firstElementChild.textContent = hidden.size ? `${axis.title} (${axis.values.size - hidden.size} of ${axis.values.size})` : axis.title;
    }
    for (const [box, set] of this.columnBoxes) box.checked = this.state[set].includes(box.value);
  }

  rankedBy() { return this.columns[this.columnAt[this.state.sort]]?.better !== "none" && this.state.sort in this.columnAt ? this.state.sort : "latency_ms"; }

  head() {
    const cell = (key, name, unit, definition, numeric) => {
      const button = el("button", { type: "button", "data-sort": key, "data-tip": definition }, el("span", { class: "name" }, name), unit ? el("span", { class: "unit" }, unit) : "");
      button.addEventListener("click", () => {
        const better = this.columns[this.columnAt[key]]?.better;
        this.state.descending = this.state.sort === key ? !this.state.descending : better === "higher";
        this.state.sort = key;
        this.changed();
        this.table.querySelector(`[data-sort="${CSS.escape(key)}"]`)?.focus();
      });
      const order = this.state.sort === key ? (this.state.descending ? "descending" : "ascending") : null;
      return el("th", { scope: "col", class: numeric ? "num" : null, "aria-sort": order }, button);
    };
    const by = this.columns[this.columnAt[this.rankedBy()]];
    const row = el("tr", {}, cell("model", "Case", "model and method", "Sort by name. The name opens the page of the case."));
    if (this.state.extra.includes("status")) row.append(cell("status", "Status", "", "ok, or why the row is not ranked"));
    if (this.state.extra.includes("rank")) row.append(el("th", { scope: "col", class: "num" }, el("button", { type: "button", "data-sort": by.key, "data-tip": "Rank inside the group. 2\u20134 means: the intervals leave open whether it is second, third or fourth.", onclick: () => { this.state.sort = by.key; this.state.descending = by.better === "higher"; this.changed(); } }, el("span", { class: "name" }, "Rank"), el("span", { class: "unit narrow-off" }, "by " + by.title.split(" (")[0].replace(/^[A-Z](?=[a-z])/, (letter) => letter.toLowerCase())))));
    for (const key of this.state.shown) {
      const column = this.columns[this.columnAt[key]];
      row.append(cell(key, column.title, column.unit, column.definition, true));
    }
    if (this.state.extra.includes("pareto")) row.append(cell("pareto", "Pareto", "latency, " + this.scores(), "front: nothing is better in both; plausible: the intervals leave it open; dominated: some row is better in both for certain."));
    return el("thead", {}, row);
  }

  groupRow(group) {
    const floor = group.floor ? ` · noise floor ${this.plain(group.floor[0], 3)} to ${this.plain(group.floor[1], 3)}` : "";
    const differs = this.groups.length > 1 ? `Ranked on its own. Not comparable with other groups: ${group.differs.join(", ") || "other conditions"}.` : "";
    const span = 1 + this.state.shown.length + this.state.extra.length;
    return el("tr", { class: "group" }, el("th", { scope: "rowgroup", colspan: span }, el("span", { class: "conditions" }, group.title, el("span", { class: "differs" }, differs + (differs ? " " : "") + group.machine + floor))));
  }

  valueCell(row, key) {
    const column = this.columns[this.columnAt[key]], cell = this.cell(row, key);
    if (!Array.isArray(cell)) {
      const reason = this.text(cell);
      return el("td", { class: "num" }, el("span", { class: "missing", tabindex: "0", "data-tip": "Not available: " + reason, "aria-label": "not available: " + reason }, "\u2014"));
    }
    const [text, more] = this.written_value(cell, column), [kind, mark] = this.provenances[cell[CELL.provenance]];
    return el("td", { class: "num", "data-tip": this.note(cell, column), "data-value": cell[CELL.value] }, text, more ? el("span", { class: "pm" }, more) : "", el("span", { class: "mark-of", "aria-label": kind }, mark));
  }

  bodyRow(row) {
    const status = this.text(row[ROW.status]), ranked = status === "ok";
    const kind = this.text(row[ROW.kind]), head = this.text(row[ROW.head]), full = this.label(row);
    const line = el("tr", { class: [ranked ? "" : "unranked", kind ? "baseline" : ""].join(" ").trim() || null, "data-page": row[ROW.page] });
    const link = el("a", { href: ROOT + row[ROW.page], title: head === full ? null : full }, ...breakable(head), kind === "plain" ? " (baseline)" : "");
    const pin = Pins.of(this.slug, row[ROW.page]);
    const star = el("button", { type: "button", class: "pin", "data-pin": pin, "aria-label": "Pin to compare", "aria-pressed": Pins.has(pin) ? "true" : "false" }, Pins.has(pin) ? "\u2605" : "\u2606");
    line.append(el("th", { scope: "row" }, star, link, el("span", { class: "model" }, this.text(row[ROW.under]))));
    if (this.state.extra.includes("status")) line.append(this.statusCell(row, status));
    if (this.state.extra.includes("rank")) {
      const text = this.rankText(this.cell(row, this.rankedBy()));
      line.append(el("td", { class: "num rank" }, text || el("span", { class: "missing", tabindex: "0", "data-tip": "Not ranked: " + this.whyUnranked(row), "aria-label": "not ranked: " + this.whyUnranked(row) }, "\u2014")));
    }
    for (const key of this.state.shown) line.append(this.valueCell(row, key));
    if (this.state.extra.includes("pareto")) line.append(this.paretoCell(row));
    return line;
  }

  whyUnranked(row) {
    const status = this.text(row[ROW.status]);
    if (status !== "ok") return [status, this.text(row[ROW.reason])].filter(Boolean).join(": ");
    const cell = this.cell(row, this.rankedBy());
    return Array.isArray(cell) ? "another provenance than the rows that are ranked" : this.text(cell);
  }

  paretoCell(row) {
    const standing = this.text(row[ROW.pareto]), note = this.text(row[ROW.paretoNote]);
    if (!standing) return el("td", {}, el("span", { class: "missing", tabindex: "0", "data-tip": note, "aria-label": "not available: " + note }, "\u2014"));
    const kind = { front: "water", plausible: "", dominated: "" }[standing];
    return el("td", {}, standing === "dominated" ? el("span", { class: "soft", tabindex: "0", "data-tip": note }, standing) : el("span", { class: "badge " + kind, tabindex: "0", "data-tip": note }, standing));
  }

  statusCell(row, status) {
    const flags = row[ROW.flags].map(this.text), reason = this.text(row[ROW.reason]);
    const kind = status === "ok" ? (flags.length ? "care" : "good") : status === "disturbed" ? "care" : "bad";
    const label = status === "ok" && flags.length ? `ok, ${flags.length} flag${flags.length > 1 ? "s" : ""}` : status;
    const tip = [reason, ...flags].filter(Boolean).join("\n");
    return el("td", {}, el("span", { class: "badge " + kind, tabindex: tip ? "0" : null, "data-tip": tip || null }, label));
  }

  render() {
    Tip.hide();
    const rows = this.sorted(this.matching()), shown = rows.slice(0, this.limit);
    const bodies = [];
    let group = -1, body = null;
    for (const row of shown) {
      if (row[ROW.group] !== group) {
        group = row[ROW.group];
        body = el("tbody", {}, this.groupRow(this.groups[group]));
        bodies.push(body);
      }
      body.append(this.bodyRow(row));
    }
    if (!rows.length) bodies.push(el("tbody", {}, el("tr", {}, el("td", { colspan: 3 }, this.rows.length ? "No row matches: loosen the filters or press Reset." : "There are no rows yet."))));
    const caption = this.table.querySelector("caption");
    this.table.replaceChildren(caption, this.head(), ...bodies);
    TableKeys.fit(this.table);
    const groups = new Set(rows.map((row) => row[ROW.group])).size;
    this.line.textContent = `${rows.length} of ${this.rows.length} rows` + (groups > 1 ? ` in ${groups} groups that are not comparable with each other` : "") + (shown.length < rows.length ? `; the first ${shown.length} are shown` : "");
    this.more.hidden = shown.length >= rows.length;
    this.visible = rows;
    this.markMenus();
    this.listeners.forEach((listener) => listener());
  }

  // The page of a case that is opened from here leads to the rows before and after it, those not shown yet as well.
  remember(what = "the table", section = "leaderboard") { View.remember(this.visible.map((row) => row[ROW.page]), what, section); }

  // ---- export: what is shown, with the full numbers ----
  records() {
    return this.visible.map((row) => {
      const record = { model: this.text(row[ROW.model]), method: this.text(row[ROW.method]), setting: this.text(row[ROW.setting]), group: this.groups[row[ROW.group]].title };
      if (this.text(row[ROW.against])) record.against = this.text(row[ROW.against]);
      if (this.state.extra.includes("rank")) {
        const cell = this.cell(row, this.rankedBy());
        record.rank_low = Array.isArray(cell) ? cell[CELL.rankLow] ?? null : null;
        record.rank_high = Array.isArray(cell) ? cell[CELL.rankHigh] ?? null : null;
      }
      for (const key of this.state.shown) {
        const cell = this.cell(row, key), column = this.columns[this.columnAt[key]], has = Array.isArray(cell);
        record[key] = has ? cell[CELL.value] : null;
        record[key + "_low"] = has ? cell[CELL.low] ?? null : null;
        record[key + "_high"] = has ? cell[CELL.high] ?? null : null;
        record[key + "_unit"] = column.raw;
        record[key + "_provenance"] = has ? this.provenances[cell[CELL.provenance]][0] : "unavailable";
        if (!has) record[key + "_reason"] = this.text(cell);
      }
      if (this.state.extra.includes("pareto")) record.pareto = this.text(row[ROW.pareto]) || null;
      if (this.state.extra.includes("status")) { record.status = this.text(row[ROW.status]); record.reason = this.text(row[ROW.reason]) || null; }
      const flags = row[ROW.flags].map(this.text);
      if (flags.length) record.flags = flags.join("; ");
      [record.case, record.machine] = row[ROW.page].replace(/^cases\//, "").replace(/\.html$/, "").split(".");
      record.page = row[ROW.page];
      return record;
    });
  }

  exportJson() { download("leaderboard.json", "application/json", JSON.stringify(this.records(), null, 1) + "\n"); }

  exportCsv() {
    const records = this.records(), head = [...new Set(records.flatMap((record) => Object.keys(record)))];
    download("leaderboard.csv", "text/csv", csvText([head, ...records.map((record) => head.map((key) => record[key]))]));
  }

  exportMarkdown() {
    const safe = (text) => String(text).replaceAll("\\", "\\\\").replaceAll("|", "\\|").replaceAll("<", "&lt;").replaceAll("\n", " ");
    const columns = this.state.shown.map((key) => this.columns[this.columnAt[key]]);
    const head = ["Model", "Method", ...(this.state.extra.includes("rank") ? ["Rank"] : []), ...columns.map(headed)];
    if (this.state.extra.includes("pareto")) head.push("Pareto");
    if (this.state.extra.includes("status")) head.push("Status");
    const lines = [];
    let group = -1;
    for (const row of this.visible) {
      if (row[ROW.group] !== group) {
        group = row[ROW.group];
        lines.push("", `**${safe(this.groups[group].title)}**`, "", `| ${head.join(" | ")} |`, `|${head.map((_, place) => (place < 2 ? "---" : "---:")).join("|")}|`);
      }
      const cells = [this.text(row[ROW.model]), this.label(row)];
      if (this.state.extra.includes("rank")) cells.push(this.rankText(this.cell(row, this.rankedBy())) || "\u2014");
      for (const column of columns) {
        const cell = this.cell(row, column.key);
        cells.push(Array.isArray(cell) ? this.written_value(cell, column).join("") + " " + this.provenances[cell[CELL.provenance]][1] : "\u2014");
      }
      if (this.state.extra.includes("pareto")) cells.push(this.text(row[ROW.pareto]) || "\u2014");
      if (this.state.extra.includes("status")) cells.push([this.text(row[ROW.status]), this.text(row[ROW.reason])].filter(Boolean).join(": "));
      lines.push(`| ${cells.map(safe).join(" | ")} |`);
    }
    lines.push("", "m measured, c counted, ~ modelled or estimated, p published; ± is the half-width of the 95 % interval.");
    download("leaderboard.md", "text/markdown", lines.join("\n").trimStart() + "\n");
  }

  // A table for a paper, with booktabs; one block of lines for each group of conditions.
  exportLatex() {
    const columns = this.state.shown.map((key) => this.columns[this.columnAt[key]]);
    const head = ["Network", "Method", ...columns.map((column) => `${texText(column.title)}${column.unit ? ` (${texText(column.unit)})` : ""}`)];
    const lines = ["% \\usepackage{booktabs}", `\\begin{tabular}{ll${"r".repeat(columns.length)}}`, "\\toprule", `${head.join(" & ")} \\\\`];
    let group = -1;
    for (const row of this.visible) {
      if (row[ROW.group] !== group) {
        group = row[ROW.group];
        lines.push("\\midrule", `\\multicolumn{${head.length}}{l}{${texText(this.groups[group].title)}} \\\\`);
      }
      const values = columns.map((column) => { const cell = this.cell(row, column.key); return Array.isArray(cell) ? `$${this.written_value(cell, column).join("").replaceAll("\u202f", "\\,").replaceAll("\u2212", "-").replace("\u00b1", "\\pm")}$` : "---"; });
      lines.push(`${[texText(this.text(row[ROW.model])), texText(this.label(row)), ...values].join(" & ")} \\\\`);
    }
    lines.push("\\bottomrule", "\\end{tabular}", "% \u00b1 is the half-width of the 95 % interval".replace("\u00b1", "+-"));
    download("leaderboard.tex", "application/x-tex", lines.join("\n") + "\n");
  }
}

// Text as LaTeX prints it; letters that have no name here become a question mark.
function texText(text) {
  const named = { "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "$": "\\$", "&": "\\&", "#": "\\#", "_": "\\_", "%": "\\%", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "\u00d7": "$\\times$", "\u00b7": "$\\cdot$", "\u00b5": "$\\mu$", "\u00b1": "$\\pm$", "\u2212": "$-$", "\u2014": "---", "\u2013": "--", "\u2026": "\\ldots{}", "\u202f": "\\,", "\u00a0": "~" };
  return [...String(text)].map((letter) => named[letter] ?? (letter.charCodeAt(0) < 128 && letter >= " " ? letter : "?")).join("");
}
