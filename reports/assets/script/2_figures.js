// Figures: plotly is loaded when the first figure comes near the screen; each is drawn once and repainted with the theme.
const Figures = {
  look: LOOK,
  loading: null,
  // What is out of sight is drawn when the page has nothing else to do, so that prints and whole-page pictures show it;
  // what is folded away waits until it is opened.
  async drawRest(all) {
    for (const figure of all) {
      await new Promise((ready) => (window.requestIdleCallback ?? ((go) => setTimeout(go, 200)))(ready));
      if (!figure.asked && !figure.node.closest("details:not([open])")) await figure.draw();
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

// Pixels below which a picture with equal scales is not made flatter.
const LEAST_HEIGHT = 240;
// Pixels from which a picture has room for the view that a figure has for wide screens.
const WIDE = 760;
// Pixels that a panel of small multiples is about wide.
const PANEL_WIDTH = 200;
// Rows of a table that are shown when it is opened; the CSV has all.
const MOST_ROWS = 1000;

// A cell of a figure's table as text, as `shown` in `reports/drawing.py` has it; numbers of a column with fractions get
// four digits.
function shownValue(value, fraction) {
  if (value === null || value === undefined) return "\u2014";
  if (typeof value !== "number") return String(value);
  const places = !fraction || value === 0 ? 0 : 3 - Math.floor(Math.log10(Math.abs(value)));
  return plainNumber(value, Math.min(Math.max(places, 0), 9));
}

class PageFigure {
  constructor(node) {
    this.node = node;
    node.figure = this;
    this.plot = node.querySelector(".plot");
    this.drawn = this.cleared = this.asked = false;
    if (this.plot) this.plot.querySelector(".wait").textContent = "Drawing\u2026";
    if (this.plot?.dataset.height) this.plot.style.minHeight = this.plot.dataset.height + "px";
    const actions = node.querySelector(".actions");
    actions.hidden = false;
    actions.addEventListener("click", (event) => { if (event.target.dataset.save) this.give(event.target.dataset.save); });
    node.querySelector(".numbers")?.addEventListener("toggle", () => this.load().then(() => this.fill(), () => {}));
  }

  // The data are in the page, or come once from a file of the site.
  load() {
    this.loading ??= this.found().then((data) => this.take(data));
    return this.loading;
  }

  async found() {
    const own = this.node.querySelector(".figure-data"), name = "figure:" + this.node.id;
    if (!own && !(name in Data.got)) await Data.file(this.node.dataset.from);
    if (!own && !(name in Data.got)) throw new Error(this.node.dataset.from + " is of another build; load the page anew");
    const held = own ? JSON.parse(own.textContent) : Data.got[name];
    const data = held.packed ? await unpacked(held.packed) : held;
    if (!data.of) return data;
    // The table is another figure's of this page, and so are texts on hover that are told by their place there.
    this.other = document.getElementById(data.of).figure;
    await this.other.load();
    const { head, rows, fractions, hover } = this.other.data;
    return { ...data, head, rows, fractions, hover: data.hover.map((text) => (typeof text === "number" ? hover[text] : text)) };
  }

  take(data) {
    this.data = data;
    this.first = data.wide && this.plot.clientWidth >= WIDE ? data.wide : Object.keys(data.views)[0] ?? "";
    this.choice = this.first;
    this.controls();
  }

  // The rows of the table that do not stand in the page.
  fill() {
    const body = this.node.querySelector(".numbers tbody");
    if (this.filled || !body) return;
    this.filled = true;
    const first = body.rows.length, more = this.data.rows.slice(first, MOST_ROWS);
    body.append(...more.map((line, at) => el("tr", { "data-row": String(first + at) },
      ...line.map((value, place) => el("td", {}, shownValue(value, this.data.fractions.includes(place)))))));
    const rest = this.node.querySelector(".rest"), shown = body.rows.length;
    if (!rest) return;
    if (shown < Number(rest.dataset.total)) rest.textContent = `The first ${shown} of ${rest.dataset.total} rows; the CSV has all.`;
    else rest.remove();
  }

  async give(kind) {
    await this.load();
    if (kind === "csv") download(this.node.id + ".csv", "text/csv", csvText([this.data.head, ...this.data.rows]));
    else await this.save(kind);
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
        Address.change({ [this.node.id]: key === this.first && !this.data.wide ? "" : key });
      }
      available();
    });
    this.choice = selects.map((select) => select.value).join(" · ");
    if (!(this.choice in this.data.views)) this.choice = Object.keys(this.data.views)[0];
    available();
    holder.hidden = false;
  }

  painted(theme, width = this.plot.clientWidth) {
    const spec = readyFigure(this.data.views[this.choice], Figures.look.palettes[theme], this.data.hover);
    const narrow = this.plot.clientWidth < 520;
    spec.layout = { ...spec.layout, autosize: true };
    if (theme === "dark") spec.data.forEach((trace) => this.strengthen(trace.marker));
    if (narrow) spec.layout.font = { ...spec.layout.font, size: 11 };
    if (spec.layout.grid) this.arrange(spec.layout, width);
    else if (spec.layout.yaxis?.scaleanchor !== undefined) this.besideOrAbove(spec, narrow);
    return spec;
  }

  // Small multiples get as many columns as there is room for; panels at the left and the lower edge alone have numbers.
  arrange(layout, width) {
    const { panels, above, around, titles } = layout.meta, gap = layout.grid.xgap;
    const room = width - layout.margin.l - layout.margin.r;
    const columns = Math.max(2, Math.min(panels, Math.round(room / PANEL_WIDTH))), rows = Math.ceil(panels / columns);
    const [across, upwards] = [layout.xaxis, layout.yaxis].map((axis) => axis.range[1] - axis.range[0]);
    const tall = room / (columns - gap) * (1 - gap) * upwards / across;
    layout.height = Math.round(rows * (tall + above) - above + around);
    layout.grid = { ...layout.grid, rows, columns, ygap: above / (tall + above) };
    for (let place = 0; place < panels; place++) {
      const number = place ? place + 1 : "", edge = [place + columns >= panels, place % columns === 0];
      [layout["xaxis" + number], layout["yaxis" + number]].forEach((axis, at) => {
        axis.showticklabels = edge[at];
        axis.title = { ...axis.title, text: edge[at] ? titles[at] : "" };
      });
    }
  }

  // Faint marks all but vanish on a dark ground: they keep their order and lose less of their strength.
  strengthen(marker) {
    const stronger = (opacity) => 0.25 + 0.75 * opacity;
    if (Array.isArray(marker?.opacity)) marker.opacity = marker.opacity.map(stronger);
    else if (typeof marker?.opacity === "number") marker.opacity = stronger(marker.opacity);
  }

  async draw() {
    if (!this.plot) return;
    this.asked = true;
    let plotly;
    try { [plotly] = await Promise.all([Figures.plotly(), this.load()]); } catch (error) {
      this.plot.querySelector(".wait").textContent = "The chart could not be drawn: " + error.message;
      return;
    }
    const spec = this.painted(Theme.now);
    if (!this.cleared) { this.cleared = true; this.plot.replaceChildren(); }
    if (spec.layout.height) this.plot.style.minHeight = spec.layout.height + "px";  // of another view it was another
    await plotly.react(this.plot, spec.data, spec.layout, Figures.look.config);
    await this.fit(plotly, spec);
    if (!this.drawn) this.plot.on("plotly_click", (event) => this.light(event.points[0]));
    this.drawn = true;
    this.node.dataset.drawn = this.choice || "yes";
  }

  // Equal scales leave room beside the picture, where its legend stands; on a phone it stands above, and makes it higher.
  besideOrAbove(spec, narrow) {
    const entries = spec.data.filter((trace) => trace.name && trace.showlegend !== false).length;
    if (narrow) {
      spec.layout.height = this.plot.clientWidth + 19 * Math.ceil(entries / 2) + 70;
      spec.layout.annotations = (spec.layout.annotations ?? []).filter((one) => one.name !== "wide");  // no room for all
    }
    else spec.layout.legend = { ...spec.layout.legend, orientation: "v", x: 1.02, y: 1, yanchor: "top" };
  }

  // With equal scales the picture is as high as what it shows; where that is much wider than high, more is shown above
  // and below. The legend follows the picture's right edge.
  async fit(plotly, spec) {
    const full = this.plot._fullLayout;
    if (spec.layout.grid || spec.layout.yaxis?.scaleanchor === undefined || !full?.yaxis?.domain) return;
    const [low, high] = full.yaxis.domain, room = full._size.h, used = (high - low) * room;
    const change = {};
    if (used < room - 2) {
      const wanted = Math.max(used, Math.min(room, LEAST_HEIGHT));
      change.height = Math.round(full.height - room + wanted);
      const more = (wanted / used - 1) * (spec.layout.yaxis.range[1] - spec.layout.yaxis.range[0]) / 2;
      if (more > 0) change["yaxis.range"] = [spec.layout.yaxis.range[0] - more, spec.layout.yaxis.range[1] + more];
    }
    const legend = spec.layout.legend, end = full.xaxis.domain[1];
    if (legend?.orientation === "v" && legend.x - end > 0.06) change["legend.x"] = end + 0.03;
    if (!Object.keys(change).length) return;
    await plotly.relayout(this.plot, change);
    if (change.height) this.plot.style.minHeight = change.height + "px";
    this.fitted = { width: this.plot.clientWidth, change };
  }

  // A mark carries the row of the table that it stands for: show that row.
  light(point) {
    const custom = Array.isArray(point?.customdata) ? point.customdata[0] : point?.customdata;
    if (this.data.links?.[custom]) {
      View.remember(this.data.links, "the figure", this.node.id);
      location.href = ROOT + this.data.links[custom];
      return;
    }
    const held = this.other ?? this;
    held.fill();
    const row = held.node.querySelector(`tr[data-row="${CSS.escape(String(custom))}"]`);
    if (!row) return;
    held.node.querySelector(".numbers").open = true;
    held.node.querySelectorAll("tr.lit").forEach((other) => other.classList.remove("lit"));
    row.classList.add("lit");
    row.scrollIntoView({ block: "nearest" });
  }

  async save(format) {
    const plotly = await Figures.plotly();
    const width = Math.max(this.plot.clientWidth, 700), spec = this.painted(Theme.now, width);
    const fitted = this.fitted?.width === width ? this.fitted.change : {};
    if (fitted["yaxis.range"]) spec.layout.yaxis = { ...spec.layout.yaxis, range: fitted["yaxis.range"] };
    if (fitted["legend.x"]) spec.layout.legend = { ...spec.layout.legend, x: fitted["legend.x"] };
    const height = fitted.height ?? spec.layout.height ?? 420;
    spec.layout = { ...spec.layout, autosize: false, width, height, paper_bgcolor: Figures.look.palettes[Theme.now]["@paper"] };
    const address = await plotly.toImage({ data: spec.data, layout: spec.layout, config: Figures.look.config }, { format, width, height, scale: format === "png" ? 2 : 1 });
    const body = address.slice(address.indexOf(",") + 1);
    const bytes = format === "svg" ? new TextEncoder().encode(decodeURIComponent(body)) : Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
    download(`${this.node.id}.${format}`, "", new Blob([bytes], { type: format === "svg" ? "image/svg+xml" : "image/png" }));
  }
}
