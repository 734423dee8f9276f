// Several quantities of comparable rows at once: a line per row, an axis per quantity, the better end always up.
// Only rows of one set of conditions are drawn together: absolute numbers of others are other experiments.
const USUAL_AXES = ["mac_ratio", "speedup", "latency_ms", "macs", "peak_memory_bytes", "energy_j", "params"];
const FEWEST_AXES = 3, FIRST_AXES = 5, MOST_AXES = 9, MOST_LINES = 200;

class Parallel extends BoardChart {
  constructor(node, board) {
    super(node, board, "parallel");
    const members = board.groups.map(() => []);
    for (const row of board.rows) members[row[ROW.group]].push(row);
    this.groups = board.groups.map((group, index) => ({ group, index, name: board.groupNames[index], columns: this.filled(members[index]) })).filter((item) => item.columns.length >= FEWEST_AXES);
    if (!this.groups.length) return;
    this.first = { by: "method" };
    if (this.groups.length > 1) {
      this.first.group = this.groups[0].name;
      this.selects.group = this.select("Conditions", "group", this.groups.map((item) => [item.name, item.group.title]));
    }
    this.selects.by = this.select("Colour", "by", KINDS_OF_ROWS);
    this.cut = node.querySelector(".cut");
    this.list = el("div");
    node.querySelector(".axes").append(el("details", { class: "menu" }, el("summary", {}, "Quantities"), this.list));
    this.start();
  }

  // The columns that two of some rows have a value of.
  filled(rows) {
    return this.board.columns.filter((column) => column.filled && rows.filter((row) => Array.isArray(this.board.cell(row, column.key))).length > 1);
  }

  current() { return this.groups.find((item) => item.name === this.selects.group?.value) ?? this.groups[0]; }

  usual() {
    const known = this.current().columns.map((column) => column.key), score = this.current().group.score?.key;
    const wanted = [...USUAL_AXES.slice(0, 2), score, ...USUAL_AXES.slice(2)].filter((key) => known.includes(key));
    return [...new Set([...wanted, ...known])].slice(0, FIRST_AXES);
  }

  // The quantities that are drawn, from left to right.
  axes() {
    const known = this.current().columns.map((column) => column.key), asked = (this.keys ?? []).filter((key) => known.includes(key));
    return asked.length >= FEWEST_AXES ? asked.slice(0, MOST_AXES) : this.usual();
  }

  read() {
    super.read();
    const keys = Address.parts.get("parallel-axes");
    this.keys = keys ? [...new Set(keys.split(","))] : null;
    this.offer();
  }

  write() {
    Address.change({ ...this.chosen(), "parallel-axes": this.keys ? this.keys.join(",") : "" });
    this.offer();
  }

  // The menu of quantities, those of the rows under the chosen conditions.
  offer() {
    if (this.offered !== this.current()) this.listUp(this.current());
    const shown = this.axes();
    for (const box of this.boxes) box.checked = shown.includes(box.value);
  }

  listUp(item) {
    this.offered = item;
    this.boxes = item.columns.map((column) => el("input", { type: "checkbox", value: column.key }));
    for (const box of this.boxes) box.addEventListener("change", () => this.choose(box.value, box.checked));
    const labels = this.boxes.map((box, place) => el("label", {}, box, item.columns[place].title));
    const find = labels.length > MANY ? typeIn(labels.map((label) => [label, label.textContent]), "Find a quantity") : null;
    this.list.replaceChildren(...[find, ...labels].filter(Boolean));
  }

  // One that is added stands at the right; there are never too few or too many to read.
  choose(key, wanted) {
    const others = this.axes().filter((other) => other !== key);
    if (!wanted && others.length < FEWEST_AXES) { this.offer(); return; }
    this.keys = wanted ? [...others.slice(0, MOST_AXES - 1), key] : others;
    this.write();
    this.draw();
  }

  mark() { return this.axes().join(" "); }

  // The cells of a column at its lower and its upper end, and where a value stands between them.
  axis(column, rows) {
    const cells = rows.map((row) => this.board.cell(row, column.key)).filter(Array.isArray).sort((a, b) => a[CELL.value] - b[CELL.value]);
    const ends = column.better === "lower" ? [cells.at(-1), cells[0]] : [cells[0], cells.at(-1)];
    const [low, high] = ends.map((cell) => cell?.[CELL.value]);
    const at = (row) => {
      const cell = this.board.cell(row, column.key);
      return !Array.isArray(cell) ? null : low === high ? 0.5 : (cell[CELL.value] - low) / (high - low);
    };
    return { column, at, ends: ends.map((cell) => (cell ? this.board.plain(cell[CELL.value] / column.factor, cell[CELL.places]) : "")) };
  }

  spec() {
    const columns = this.axes().map((key) => this.board.columns[this.board.columnAt[key]]), group = this.current().index, by = this.selects.by.value;
    const known = (row) => columns.filter((column) => Array.isArray(this.board.cell(row, column.key))).length;
    const all = this.board.visible.filter((row) => row[ROW.group] === group && known(row) > 1), rows = all.slice(0, MOST_LINES);
    this.cut.textContent = `The first ${rows.length} of ${all.length} rows in the order of the table.`;
    this.cut.hidden = rows.length === all.length;
    const axes = columns.map((column) => this.axis(column, rows)), names = [...new Set(rows.map((row) => this.label(row, by)))];
    const data = rows.map((row) => {
      const name = this.label(row, by), number = names.indexOf(name), color = name === "none" ? "@ink" : HUES[number % HUES.length], open = this.disturbed(row);
      return {
        type: "scatter", mode: "lines+markers", name: plainText(name || "none"), legendgroup: name, showlegend: rows.find((other) => this.label(other, by) === name) === row,
        x: axes.map((_, place) => place), y: axes.map((axis) => axis.at(row)), connectgaps: false, customdata: axes.map(() => row[ROW.page]), hoverinfo: "text", hovertext: axes.map(() => this.told(row, columns)),
        line: { width: 1.5, color, dash: open ? "dot" : "solid" }, marker: { size: 6, color, symbol: SHAPES[number % SHAPES.length] + (open ? "-open" : "") }, opacity: rows.length > 40 ? 0.6 : 0.9,
      };
    });
    const note = (text, place, y) => ({ text: plainText(text), showarrow: false, x: place, y, yanchor: "middle", font: { size: 12, color: "@quiet" } });
    const title = (column) => plainText(column.title) + (column.unit ? `<br>${plainText(column.unit)}` : "");
    const layout = {
      ...this.look(), height: 460, margin: { l: 24, r: 24, t: 28, b: 64 }, showlegend: names.length > 1,
      xaxis: { tickvals: axes.map((_, place) => place), ticktext: columns.map(title), range: [-0.4, axes.length - 0.6], showgrid: false, zeroline: false, fixedrange: true, automargin: true, tickfont: { size: 12 } },
      yaxis: { visible: false, range: [-0.14, 1.14], fixedrange: true },
      shapes: axes.map((_, place) => ({ type: "line", layer: "below", x0: place, x1: place, y0: 0, y1: 1, line: { width: 1, color: "@quiet" } })),
      annotations: axes.flatMap((axis, place) => [note(axis.ends[0], place, -0.08), note(axis.ends[1], place, 1.08)]),
    };
    return { data, layout };
  }
}
