// "Which one should I use?": the row with the best score that stays inside a latency budget, in words, from the same numbers.
class Chooser {
  constructor(node, board) {
    this.node = node;
    this.board = board;
    this.select = node.querySelector("select");
    this.input = node.querySelector("input");
    this.answer = node.querySelector(".answer");
    this.list = node.querySelector("ol");
    this.groups = board.groups.map((group, index) => ({ group, name: board.groupNames[index], rows: this.timed(index) })).filter((item) => item.rows.length);
    if (!this.groups.length) return;
    this.first = this.groups.find((item) => item.group.score) ?? this.groups[0];
    this.options = this.groups.map((item) => el("option", { value: item.name }, item.group.title));
    this.select.replaceChildren(...this.options);
    this.select.addEventListener("change", () => { this.suggest(); this.write(""); this.reply(); });
    this.input.addEventListener("input", () => { this.write(this.input.value); this.reply(); });
    typeInto(this.select, "Find conditions");
    this.read();
    window.addEventListener("hashchange", () => this.read());
    node.hidden = false;
  }

  // What a link asks for. Its budget was meant for its conditions: where they are not here, it asks for nothing.
  read() {
    const parts = Address.parts, named = parts.get("conditions"), budget = Number(parts.get("budget"));
    const asked = named === null ? this.first : this.groups.find((item) => item.name === named);
    this.select.replaceChildren(...this.options);
    this.select.value = (asked ?? this.first).name;
    this.suggest();
    if (asked && budget > 0) this.input.value = budget;
    this.reply();
  }

  // A budget that is only suggested is not in the address, for other results suggest another one.
  write(budget) {
    Address.change({ conditions: this.current() === this.first ? "" : this.current().name, budget });
  }

  timed(group) {
    return this.board.rows.filter((row) => row[ROW.group] === group && this.board.text(row[ROW.status]) === "ok" && Array.isArray(this.board.cell(row, "latency_ms")));
  }

  cell(row, key) { const cell = this.board.cell(row, key); return Array.isArray(cell) ? cell : null; }
  number(row, key) { return this.cell(row, key)?.[CELL.value] ?? null; }
  upper(row) { const cell = this.cell(row, "latency_ms"); return cell[CELL.high] ?? cell[CELL.value]; }
  lower(row) { const cell = this.cell(row, "latency_ms"); return cell[CELL.low] ?? cell[CELL.value]; }
  current() { return this.groups.find((item) => item.name === this.select.value); }

  // The first question under some conditions: a budget that splits the rows, rounded to two digits.
  suggest() {
    this.node.querySelector(".run").textContent = this.current().group.run;
    const times = this.current().rows.map((row) => this.upper(row)).sort((a, b) => a - b);
    const middle = times[Math.floor(times.length / 2)];
    const place = 10 ** (Math.floor(Math.log10(middle)) - 1);
    this.input.value = Number((Math.ceil(middle / place) * place).toPrecision(2));
    this.input.step = "any";
  }

  written(row, key) {
    const column = this.board.columns[this.board.columnAt[key]], cell = this.cell(row, key);
    if (!cell) return null;
    const text = this.board.written_value(cell, column).join("");
    return column.unit === "×" ? text + "×" : column.unit === "%" ? (text.includes("±") ? `(${text}) %` : `${text} %`) : `${text} ${column.unit}`.trimEnd();
  }

  link(row) {
    return el("a", { href: ROOT + row[ROW.page] }, this.named(row));
  }

  named(row) {
    const [model, head, kind] = ["model", "head", "kind"].map((name) => this.board.text(row[ROW[name]]));
    if (kind === "plain" && this.board.text(row[ROW.method]) === "none") return `${model} with no method`;
    return head.startsWith(model) ? head : `${model} with ${head}`;
  }

  reply() {
    const budget = Number(this.input.value), rows = this.current().rows;
    this.list.replaceChildren();
    if (!(budget > 0)) { this.answer.replaceChildren("Give a time in milliseconds."); return; }
    const inside = rows.filter((row) => this.upper(row) <= budget), maybe = rows.filter((row) => this.upper(row) > budget && this.lower(row) <= budget);
    if (!inside.length) {
      const fastest = [...rows].sort((a, b) => this.number(a, "latency_ms") - this.number(b, "latency_ms"))[0];
      this.answer.replaceChildren(`Nothing here is surely within ${budget} ms. The fastest is `, this.link(fastest), ` at ${this.written(fastest, "latency_ms")}.`);
      return;
    }
    const score = this.current().group.score;
    const judged = score ? inside.filter((row) => this.number(row, score.key) !== null) : [];
    if (judged.length) this.byScore(score, budget, judged, maybe); else this.bySize(budget, inside);
  }

  byScore(score, budget, rows, maybe) {
    const sign = score.better === "higher" ? 1 : -1, value = (row) => sign * this.number(row, score.key);
    const order = [...rows].sort((a, b) => value(b) - value(a) || this.number(a, "latency_ms") - this.number(b, "latency_ms"));
    const best = order[0];
    this.answer.replaceChildren("Use ", el("strong", {}, this.link(best)), `: ${this.written(best, "latency_ms")} at ${this.written(best, score.key)} ${score.title}, the best of ${rows.length} within ${budget} ms.${this.promise(best)}`);
    for (const row of order.slice(1, 4)) {
      const faster = this.number(row, "latency_ms") < this.number(best, "latency_ms");
      const words = [faster ? "faster" : "", this.apart(score, best, row) ? "" : `its ${score.title} cannot be told apart from the first`].filter(Boolean).join("; ");
      this.list.append(el("li", {}, this.link(row), `: ${this.written(row, "latency_ms")}, ${this.written(row, score.key)}` + (words ? ` (${words})` : "")));
    }
    for (const row of maybe.slice(0, 2)) this.list.append(el("li", {}, this.link(row), `: ${this.written(row, "latency_ms")}, so perhaps within ${budget} ms`));
  }

  // Whether two scores differ for certain: by their own intervals, or by those of their changes, which are paired sample by sample.
  apart(score, one, other) {
    if (this.separate(one, other, score.key)) return true;
    const change = `${score.key}_change`;
    for (const [side, row] of [[one, other], [other, one]]) {
      const cell = this.isSideOf(side, row) ? this.cell(row, change) : null;
      if (cell) return cell[CELL.low] > 0 || cell[CELL.high] < 0;
    }
    return this.sideOf(one) === this.sideOf(other) && this.separate(one, other, change);
  }

  separate(one, other, key) {
    const [a, b] = [this.cell(one, key), this.cell(other, key)];
    return Boolean(a && b) && (a[CELL.high] < b[CELL.low] || b[CELL.high] < a[CELL.low]);
  }

  // What a row is compared with: what it names, else its model without a method.
  sideOf(row) { return this.board.text(row[ROW.against]) || this.board.text(row[ROW.model]); }
  isSideOf(side, row) {
    const named = this.board.text(row[ROW.against]), kind = this.board.text(side[ROW.kind]);
    return named ? kind === "other side" && this.board.text(side[ROW.head]) === named : kind === "plain" && side[ROW.model] === row[ROW.model];
  }

  bySize(budget, rows) {
    const order = [...rows].sort((a, b) => (this.number(b, "macs") ?? 0) - (this.number(a, "macs") ?? 0) || this.number(a, "latency_ms") - this.number(b, "latency_ms"));
    const best = order[0];
    this.answer.replaceChildren("No score was measured under these conditions, so nothing here can be called best. The one with the most operations that fits is ", el("strong", {}, this.link(best)), ` at ${this.written(best, "latency_ms")}` + (this.written(best, "macs") ? ` and ${this.written(best, "macs")}` : "") + `.${this.promise(best)}`);
    for (const row of order.slice(1, 4)) this.list.append(el("li", {}, this.link(row), `: ${this.written(row, "latency_ms")}, ${this.written(row, "macs") ?? "MACs not counted"}`));
  }

  promise(row) {
    const speed = this.written(row, "speedup"), promised = this.written(row, "mac_ratio"), gain = this.number(row, "realised_gain");
    if (!speed || !promised || gain === null) return "";
    const other = this.board.text(row[ROW.against]) || "the network without a method";
    return ` Its operations promise ${promised} over ${other}; this machine gives ${speed}.`;
  }
}
