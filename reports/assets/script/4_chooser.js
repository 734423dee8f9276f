// "Which method should I use?": the most accurate row that stays inside a latency budget, in words, from the same numbers.
class Chooser {
  constructor(node, board) {
    this.node = node;
    this.board = board;
    this.select = node.querySelector("select");
    this.input = node.querySelector("input");
    this.answer = node.querySelector(".answer");
    this.list = node.querySelector("ol");
    this.groups = board.groups.map((group, index) => ({ group, index, rows: this.timed(index) })).filter((item) => item.rows.length);
    if (!this.groups.length) return;
    this.select.replaceChildren(...this.groups.map((item) => el("option", { value: item.index }, item.group.title)));
    const best = this.groups.find((item) => item.rows.some((row) => this.number(row, "accuracy") !== null)) ?? this.groups[0];
    this.select.value = best.index;
    this.select.addEventListener("change", () => { this.suggest(); this.reply(); });
    this.input.addEventListener("input", () => this.reply());
    this.suggest();
    this.reply();
    node.hidden = false;
  }

  timed(group) {
    return this.board.rows.filter((row) => row[GROUP] === group && this.board.text(row[STATUS]) === "ok" && Array.isArray(this.board.cell(row, "latency_ms")));
  }

  cell(row, key) { const cell = this.board.cell(row, key); return Array.isArray(cell) ? cell : null; }
  number(row, key) { return this.cell(row, key)?.[VALUE] ?? null; }
  upper(row) { const cell = this.cell(row, "latency_ms"); return cell[HIGH] ?? cell[VALUE]; }
  lower(row) { const cell = this.cell(row, "latency_ms"); return cell[LOW] ?? cell[VALUE]; }
  current() { return this.groups.find((item) => String(item.index) === this.select.value); }

  // The first question: a budget that splits the rows, rounded to two digits.
  suggest() {
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
    return column.unit === "×" ? text + "×" : column.unit === "%" ? (text.includes("±") ? `(${text}) %` : `${text} %`) : `${text} ${column.unit}`;
  }

  link(row) {
    return el("a", { href: row[PAGE] }, `${this.board.text(row[MODEL])} with ${this.board.text(row[METHOD]) === "none" ? "no method" : this.board.text(row[SHOWN])}`);
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
    const judged = inside.filter((row) => this.number(row, "accuracy") !== null);
    if (judged.length) this.byAccuracy(budget, judged, maybe); else this.bySize(budget, inside);
  }

  byAccuracy(budget, rows, maybe) {
    const order = [...rows].sort((a, b) => this.number(b, "accuracy") - this.number(a, "accuracy") || this.number(a, "latency_ms") - this.number(b, "latency_ms"));
    const best = order[0];
    this.answer.replaceChildren("Use ", el("strong", {}, this.link(best)), `: ${this.written(best, "latency_ms")} at ${this.written(best, "accuracy")} accuracy, the most accurate of ${rows.length} within ${budget} ms.${this.promise(best)}`);
    const floor = this.cell(best, "accuracy")[LOW] ?? this.number(best, "accuracy");
    for (const row of order.slice(1, 4)) {
      const high = this.cell(row, "accuracy")[HIGH] ?? this.number(row, "accuracy");
      const words = [this.number(row, "latency_ms") < this.number(best, "latency_ms") ? "faster" : "", high >= floor ? "its accuracy cannot be told apart from the first" : ""].filter(Boolean).join("; ");
      this.list.append(el("li", {}, this.link(row), `: ${this.written(row, "latency_ms")}, ${this.written(row, "accuracy")}` + (words ? ` (${words})` : "")));
    }
    for (const row of maybe.slice(0, 2)) this.list.append(el("li", {}, this.link(row), `: ${this.written(row, "latency_ms")}, so perhaps within ${budget} ms`));
  }

  bySize(budget, rows) {
    const order = [...rows].sort((a, b) => (this.number(b, "macs") ?? 0) - (this.number(a, "macs") ?? 0));
    const best = order[0];
    this.answer.replaceChildren("No accuracy was measured under these conditions, so nothing here can be called best. The largest network that fits is ", el("strong", {}, this.link(best)), ` at ${this.written(best, "latency_ms")}` + (this.written(best, "macs") ? ` and ${this.written(best, "macs")}` : "") + `.${this.promise(best)}`);
    for (const row of order.slice(1, 4)) this.list.append(el("li", {}, this.link(row), `: ${this.written(row, "latency_ms")}, ${this.written(row, "macs") ?? "MACs not counted"}`));
  }

  promise(row) {
    const speed = this.written(row, "speedup"), promised = this.written(row, "mac_ratio"), gain = this.number(row, "realised_gain");
    if (!speed || !promised || gain === null) return "";
    return ` Its operations promise ${promised} over the unreduced network; this machine gives ${speed}.`;
  }
}
