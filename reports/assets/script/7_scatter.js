// Any two quantities of a suite's rows against each other, coloured and taken apart by whatever one likes.
// It draws what the table's filters leave; rows of other conditions are never joined or ranked.
class Scatter extends BoardChart {
  constructor(node, board) {
    super(node, board, "scatter");
    const filled = board.columns.filter((column) => column.filled && board.rows.filter((row) => Array.isArray(board.cell(row, column.key))).length > 1);
    if (filled.length < 2) return;
    const has = (...keys) => keys.find((key) => filled.some((column) => column.key === key));
    this.first = { x: has("latency_ms", "macs") ?? filled[0].key, y: has(...board.groups.map((group) => group.score?.key), "macs", "speedup") ?? filled[1].key, by: "method", apart: "" };
    if (this.first.x === this.first.y) this.first.y = filled.find((column) => column.key !== this.first.x).key;
    const columns = filled.map((column) => [column.key, headed(column)]);
    const kinds = [...KINDS_OF_ROWS, ["group", "conditions"]];
    this.selects = { x: this.select("Across", "x", columns), y: this.select("Up", "y", columns), by: this.select("Colour", "by", kinds), apart: this.select("Apart by", "apart", [["", "nothing"], ...kinds.filter(([key]) => key !== "status")]) };
    this.scale = ["x", "y"].map((axis) => this.check(axis));
    this.start();
  }

  check(axis) {
    const box = el("input", { type: "checkbox" });
    box.addEventListener("change", () => { this.write(); this.draw(); });
    this.node.querySelector(".choices").append(el("label", {}, box, `log ${axis === "x" ? "across" : "up"}`));
    return box;
  }

  read() {
    super.read();
    const logs = Address.parts.get("scatter-log") ?? "";
    this.scale.forEach((box, place) => { box.checked = logs.includes("xy"[place]); });
  }

  write() {
    Address.change({ ...this.chosen(), "scatter-log": this.scale.map((box, place) => (box.checked ? "xy"[place] : "")).join("") });
  }

  mark() { return `${this.selects.x.value} ${this.selects.y.value}`; }

  column(name) { return this.board.columns[this.board.columnAt[this.selects[name].value]]; }

  spec() {
    const [x, y] = [this.column("x"), this.column("y")], by = this.selects.by.value, apart = this.selects.apart.value;
    const value = (row, column) => { const cell = this.board.cell(row, column.key); return Array.isArray(cell) ? cell[CELL.value] / column.factor : null; };
    const rows = this.board.visible.filter((row) => value(row, x) !== null && value(row, y) !== null).slice(0, 3000);
    const names = [...new Set(rows.map((row) => this.label(row, by)))];
    const panels = apart ? [...new Set(rows.map((row) => this.label(row, apart)))].slice(0, 9) : [""];
    const across = Math.min(panels.length, this.plot.clientWidth < 620 ? 1 : 3), down = Math.ceil(panels.length / across);
    const shape = (column) => ({ type: this.scale[column === x ? 0 : 1].checked ? "log" : "linear", gridcolor: "@grid", linecolor: "@quiet", tickcolor: "@quiet", zeroline: false, automargin: true, showline: true, ticks: "outside", tickfont: { size: 12 } });
    const layout = { ...this.look(), height: Math.max(440, 300 * down + 60), margin: { l: 56, r: 16, t: 28, b: 48 }, showlegend: names.length > 1, annotations: [] };
    const data = [];
    panels.forEach((panel, place) => {
      const end = place ? String(place + 1) : "", column = place % across, line = Math.floor(place / across);
      const room = (at, count, gap) => [at / count + (at ? gap : 0), (at + 1) / count - (at + 1 < count ? gap : 0)];
      layout["xaxis" + end] = { ...shape(x), title: { text: line === down - 1 || place + across >= panels.length ? plainText(headed(x)) : "", standoff: 8, font: { size: 13 } }, domain: room(column, across, 0.025), anchor: "y" + end, ...(place ? { matches: "x" } : {}) };
      layout["yaxis" + end] = { ...shape(y), title: { text: column === 0 ? plainText(headed(y)) : "", standoff: 8, font: { size: 13 } }, domain: room(down - 1 - line, down, 0.05), anchor: "x" + end, ...(place ? { matches: "y" } : {}) };
      if (apart) layout.annotations.push({ text: plainText(panel.length > 48 ? panel.slice(0, 47) + "\u2026" : panel), showarrow: false, x: 0, y: 1, xref: `x${end} domain`, yref: `y${end} domain`, xanchor: "left", yanchor: "bottom", font: { size: 12, color: "@quiet" } });
      names.forEach((name, number) => {
        const own = rows.filter((row) => this.label(row, by) === name && (!apart || this.label(row, apart) === panel));
        if (!own.length) return;
        data.push({
          type: "scatter", mode: "markers", name: plainText(name || "none"), legendgroup: name, showlegend: !data.some((trace) => trace.legendgroup === name),
          x: own.map((row) => value(row, x)), y: own.map((row) => value(row, y)), xaxis: "x" + end, yaxis: "y" + end,
          error_x: this.bars(own, x), error_y: this.bars(own, y), customdata: own.map((row) => row[ROW.page]), hoverinfo: "text",
          hovertext: own.map((row) => this.told(row, [x, y])),
          marker: { size: 9, color: name === "none" ? "@ink" : HUES[number % HUES.length], symbol: own.map((row) => SHAPES[number % SHAPES.length] + (this.disturbed(row) ? "-open" : "")) },
        });
      });
    });
    return { data, layout };
  }

  bars(rows, column) {
    const ends = rows.map((row) => this.board.cell(row, column.key));
    const far = (cell, place, sign) => (cell[place] === null || cell[place] === undefined ? 0 : Math.max(0, sign * (cell[place] - cell[CELL.value]) / column.factor));
    return { type: "data", symmetric: false, thickness: 1, width: 0, color: "@quiet", array: ends.map((cell) => far(cell, CELL.high, 1)), arrayminus: ends.map((cell) => far(cell, CELL.low, -1)) };
  }
}
