// What charts of the table's rows share: menus whose choices live in the address, and drawing once the chart is near the
// screen and again with the theme, the filters and the address. A kind of chart says what it draws (`spec`) and what of
// its choices tells that it was drawn (`mark`).
const HUES = ["@blue", "@vermillion", "@green", "@purple", "@orange", "@sky"];
const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "hexagon", "x", "pentagon"];
const KINDS_OF_ROWS = [["model", "network"], ["method", "method"], ["status", "status"]];

class BoardChart {
  // `name` begins the chart's entries in the address.
  constructor(node, board, name) {
    this.node = node;
    this.board = board;
    this.name = name;
    this.plot = node.querySelector(".plot");
    this.selects = {};
    this.first = {};
  }

  // Once its menus are made.
  start() {
    this.read();
    this.node.hidden = false;
    const seen = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) { seen.disconnect(); this.ready = true; this.draw(); } }, { rootMargin: "300px" });
    seen.observe(this.plot);
    Theme.listeners.push(() => this.draw());
    this.board.listeners.push(() => this.draw());
    window.addEventListener("hashchange", () => { this.read(); this.draw(); });
  }

  select(title, name, options) {
    const select = el("select", { "data-of": name }, ...options.map(([value, text]) => el("option", { value }, text)));
    const holder = this.node.querySelector(".choices");
    holder.append(el("label", {}, title, select));
    typeInto(select, "Find in " + title);
    select.addEventListener("change", () => { this.write(); this.draw(); });
    return select;
  }

  read() {
    const parts = Address.parts;
    for (const [name, select] of Object.entries(this.selects)) {
      const wanted = parts.get(`${this.name}-${name}`);
      select.value = wanted !== null && [...select.options].some((option) => option.value === wanted) ? wanted : this.first[name];
    }
  }

  // What is chosen in the menus, as entries of the address; the first choice needs none.
  chosen() {
    return Object.fromEntries(Object.entries(this.selects).map(([name, select]) => [`${this.name}-${name}`, select.value === this.first[name] ? "" : select.value]));
  }

  write() { Address.change(this.chosen()); }

  label(row, kind) {
    if (kind === "group") return this.board.groups[row[ROW.group]].title;
    return this.board.text(row[ROW[kind]]);
  }

  disturbed(row) { return this.board.text(row[ROW.status]) === "disturbed"; }

  // What a row is and what it has of some columns, as the text of a note.
  told(row, columns) {
    const named = `<b>${plainText(this.board.text(row[ROW.model]))} · ${plainText(this.board.text(row[ROW.head]))}</b><br>${plainText(this.board.groups[row[ROW.group]].title)}`;
    return columns.reduce((text, column) => {
      const cell = this.board.cell(row, column.key), value = Array.isArray(cell) ? `${this.board.written_value(cell, column).join("")} ${plainText(column.unit)}` : "\u2014";
      return `${text}<br>${plainText(column.title)} ${value}`;
    }, named);
  }

  look() {
    return {
      hovermode: "closest", autosize: true, paper_bgcolor: "@none", plot_bgcolor: "@none", font: { family: "system-ui, sans-serif", size: 13, color: "@ink" },
      modebar: { bgcolor: "@none", color: "@quiet", activecolor: "@ink" },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } }, hoverlabel: { align: "left", bgcolor: "@paper", bordercolor: "@quiet", font: { color: "@ink" } },
    };
  }

  async draw() {
    if (!this.ready) return;
    let plotly;
    try { plotly = await Figures.plotly(); } catch (error) { this.plot.textContent = "The chart could not be drawn: " + error.message; return; }
    const spec = paintFigure(this.spec(), Figures.look.palettes[Theme.now]);
    await plotly.react(this.plot, spec.data, spec.layout, Figures.look.config);
    if (!this.drawn) this.plot.on("plotly_click", (event) => { this.board.remember("the chart", this.name); location.href = ROOT + event.points[0].customdata; });
    this.drawn = true;
    this.node.dataset[this.name] = this.mark();
  }
}

// Text that plotly shows as it is: its own markup is switched off.
function plainText(text) { return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;"); }
