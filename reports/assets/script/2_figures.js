// Figures: plotly is loaded when the first figure comes near the screen; each is drawn once and repainted with the theme.
const Figures = {
  look: null,
  loading: null,
  // What is out of sight is drawn when the page has nothing else to do, so that prints and whole-page pictures show it.
  async drawRest(all) {
    for (const figure of all) {
      await new Promise((ready) => (window.requestIdleCallback ?? ((go) => setTimeout(go, 200)))(ready));
      if (!figure.asked) await figure.draw();
    }
  },
  plotly() {
    if (window.Plotly) return Promise.resolve(window.Plotly);  // a page made into one file brings it along
    this.loading ??= window.Plotly ? Promise.resolve(window.Plotly) : new Promise((ready, failed) => {
      const script = el("script", { src: ROOT + "assets/plotly.min.js" });
      script.addEventListener("load", () => ready(window.Plotly));
      script.addEventListener("error", () => failed(new Error("assets/plotly.min.js could not be read")));
      document.head.append(script);
    });
    return this.loading;
  },
  start() {
    this.look = inert("look");
    const nodes = [...document.querySelectorAll("[data-figure]")];
    const all = nodes.map((node) => new PageFigure(node));
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        entry.target.figure.draw();
      }
    }, { rootMargin: "500px" });
    nodes.forEach((node) => seen.observe(node));
    this.drawRest(all);
    Theme.listeners.push(() => all.forEach((figure) => figure.drawn && figure.draw()));
    window.addEventListener("beforeprint", () => { Theme.printing = true; all.forEach((figure) => figure.drawn && figure.draw()); });
    window.addEventListener("afterprint", () => { Theme.printing = false; all.forEach((figure) => figure.drawn && figure.draw()); });
  },
};

class PageFigure {
  constructor(node) {
    this.node = node;
    node.figure = this;
    this.data = JSON.parse(node.querySelector(".figure-data").textContent);
    this.plot = node.querySelector(".plot");
    this.drawn = this.cleared = this.asked = false;
    if (this.plot) this.plot.querySelector(".wait").textContent = "Drawing\u2026";
    this.choice = Object.keys(this.data.views)[0] ?? "";
    if (this.plot?.dataset.height) this.plot.style.minHeight = this.plot.dataset.height + "px";
    this.controls();
    const actions = node.querySelector(".actions");
    actions.hidden = false;
    actions.addEventListener("click", (event) => {
      const kind = event.target.dataset.save;
      if (kind === "csv") download(node.id + ".csv", "text/csv", csvText([this.data.head, ...this.data.rows]));
      else if (kind) this.save(kind);
    });
  }

  controls() {
    if (!this.data.controls.length || !this.plot) return;
    const holder = this.node.querySelector(".choices");
    const first = (Address.parts.get(this.node.id) ?? this.choice).split(" · ");
    const selects = this.data.controls.map(([label, options], place) => {
      const select = el("select", {}, ...options.map((text) => el("option", { value: text }, text)));
      select.value = options.includes(first[place]) ? first[place] : options[0];
      holder.append(el("label", {}, label, select));
      typeInto(select, "Find in " + label);
      return select;
    });
    const available = () => {
      selects.forEach((select, place) => [...select.options].forEach((option) => {
        const key = selects.map((other, at) => (at === place ? option.value : other.value)).join(" · ");
        option.disabled = !(key in this.data.views);
      }));
    };
    holder.addEventListener("change", () => {
      const key = selects.map((select) => select.value).join(" · ");
      if (key in this.data.views) {
        this.choice = key;
        this.draw();
        Address.change({ [this.node.id]: key === Object.keys(this.data.views)[0] ? "" : key });
      }
      available();
    });
    this.choice = selects.map((select) => select.value).join(" · ");
    if (!(this.choice in this.data.views)) this.choice = Object.keys(this.data.views)[0];
    available();
    holder.hidden = false;
  }

  painted(theme) {
    const spec = readyFigure(this.data.views[this.choice], Figures.look.palettes[theme], this.data.hover);
    const narrow = this.plot.clientWidth < 520;
    spec.layout = { ...spec.layout, autosize: true };
    if (narrow) spec.layout.font = { ...spec.layout.font, size: 11 };
    if (spec.layout.yaxis?.scaleanchor !== undefined) this.besideOrAbove(spec, narrow);
    return spec;
  }

  async draw() {
    if (!this.plot) return;
    this.asked = true;
    let plotly;
    try { plotly = await Figures.plotly(); } catch (error) {
      this.plot.querySelector(".wait").textContent = "The chart could not be drawn: " + error.message;
      return;
    }
    const spec = this.painted(Theme.now);
    if (!this.cleared) { this.cleared = true; this.plot.replaceChildren(); }
    await plotly.react(this.plot, spec.data, spec.layout, Figures.look.config);
    await this.moveLegend(plotly, spec);
    if (!this.drawn) this.plot.on("plotly_click", (event) => this.light(event.points[0]));
    this.drawn = true;
    this.node.dataset.drawn = this.choice || "yes";
  }

  // Equal scales leave room beside the picture, where its legend stands; on a phone it stands above, and makes it higher.
  besideOrAbove(spec, narrow) {
    const entries = spec.data.filter((trace) => trace.name && trace.showlegend !== false).length;
    if (narrow) spec.layout.height = this.plot.clientWidth + 19 * Math.ceil(entries / 2) + 70;
    else spec.layout.legend = { ...spec.layout.legend, orientation: "v", x: 1.02, y: 1, yanchor: "top" };
  }

  async moveLegend(plotly, spec) {
    const legend = spec.layout.legend, end = this.plot._fullLayout?.xaxis?.domain?.[1];
    if (legend?.orientation !== "v" || spec.layout.yaxis?.scaleanchor === undefined || !end) return;
    if (legend.x - end > 0.06) await plotly.relayout(this.plot, { "legend.x": end + 0.03 });
  }

  // A mark carries the row of the table that it stands for: show that row.
  light(point) {
    const custom = Array.isArray(point?.customdata) ? point.customdata[0] : point?.customdata;
    if (this.data.links?.[custom]) { location.href = ROOT + this.data.links[custom]; return; }
    const row = this.node.querySelector(`tr[data-row="${CSS.escape(String(custom))}"]`);
    if (!row) return;
    this.node.querySelector(".numbers").open = true;
    this.node.querySelectorAll("tr.lit").forEach((other) => other.classList.remove("lit"));
    row.classList.add("lit");
    row.scrollIntoView({ block: "nearest" });
  }

  async save(format) {
    const plotly = await Figures.plotly();
    const spec = this.painted(Theme.now);
    const width = Math.max(this.plot.clientWidth, 700), height = spec.layout.height || 420;
    spec.layout = { ...spec.layout, autosize: false, width, height, paper_bgcolor: Figures.look.palettes[Theme.now]["@paper"] };
    const address = await plotly.toImage({ data: spec.data, layout: spec.layout, config: Figures.look.config }, { format, width, height, scale: format === "png" ? 2 : 1 });
    const body = address.slice(address.indexOf(",") + 1);
    const bytes = format === "svg" ? new TextEncoder().encode(decodeURIComponent(body)) : Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
    download(`${this.node.id}.${format}`, "", new Blob([bytes], { type: format === "svg" ? "image/svg+xml" : "image/png" }));
  }
}
