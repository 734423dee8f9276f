// Rows that a reader pins on any page and sees side by side in compare.html; which ones is in that page's address.
const Pins = {
  most: 4,
  memory: [],
  get all() {
    try { return JSON.parse(localStorage.getItem("waterline-pins")) ?? []; } catch { return this.memory; }
  },
  set all(list) {
    this.memory = list;
    try { localStorage.setItem("waterline-pins", JSON.stringify(list)); } catch { /* a page from disk may not store */ }
    this.show();
  },
  has(pin) { return this.all.includes(pin); },
  toggle(pin) { this.all = this.has(pin) ? this.all.filter((other) => other !== pin) : [...this.all, pin].slice(-this.most); },
  of(suite, page) { return `${suite}:${page.replace(/^cases\//, "").replace(/\.html$/, "")}`; },
  start() {
    document.querySelectorAll("button[data-pin]").forEach((button) => { button.hidden = false; });
    document.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("button[data-pin]") : null;
      if (button) this.toggle(button.dataset.pin);
    });
    this.tray = el("aside", { class: "tray", "aria-label": "Pinned rows" });
    document.body.append(this.tray);
    window.addEventListener("storage", () => this.show());
    this.show();
  },
  show() {
    const pins = this.all;
    this.tray.hidden = pins.length === 0 || Boolean(document.getElementById("pinned"));
    const link = el("a", { href: `${ROOT}compare.html#pins=${encodeURIComponent(pins.join(","))}` }, "Compare");
    this.tray.replaceChildren(el("span", {}, `${pins.length} of ${this.most} pinned`), pins.length > 1 ? link : el("span", { class: "soft" }, "pin another one"),
      el("button", { type: "button", class: "quiet", onclick: () => { this.all = []; } }, "Clear"));
    for (const button of document.querySelectorAll("button[data-pin]")) {
      const on = pins.includes(button.dataset.pin);
      button.setAttribute("aria-pressed", on ? "true" : "false");
      if (button.classList.contains("pin")) button.textContent = on ? "\u2605" : "\u2606";
      else button.textContent = on ? "Pinned" : "Pin to compare";
    }
  },
};

// Two to four rows side by side: every quantity that one of them has, those that differ first in view.
class Pinned {
  constructor(node) {
    this.node = node;
    this.holder = node.querySelector(".side-by-side");
    this.line = node.querySelector(".status-line");
    window.addEventListener("hashchange", () => this.read());
    this.read();
  }

  async read() {
    const named = (Address.parts.get("pins") ?? Pins.all.join(",")).split(",").filter((pin) => /^[a-z0-9_-]+:[\w.-]+$/.test(pin)).slice(0, Pins.most);
    if (!named.length) { this.line.textContent = "No row is pinned yet: press the star before a row of a table, or \u201cPin to compare\u201d on the page of a case."; this.holder.replaceChildren(); return; }
    const found = [];
    for (const suite of new Set(named.map((pin) => pin.split(":")[0]))) {
      let data;
      try { data = await Data.load("rows", `suites/${suite}.rows.js`); } catch { continue; }
      const row = places(data.rowFields), cell = places(data.cellFields);
      for (const pin of named) {
        const page = `cases/${pin.split(":")[1]}.html`;
        const own = pin.startsWith(suite + ":") && data.rows.find((item) => item[row.page] === page);
        if (own) found.push({ pin, page, data, own, row, cell });
      }
    }
    found.sort((a, b) => named.indexOf(a.pin) - named.indexOf(b.pin));
    this.line.textContent = found.length < named.length ? `${named.length - found.length} of the pinned rows are not in this site.` : "";
    this.draw(found);
    Address.change({ pins: named.join(",") });
  }

  draw(found) {
    const text = (item, name) => item.data.strings[item.own[item.row[name]]];
    const head = el("tr", {}, el("th", { scope: "col" }, "Quantity"), ...found.map((item) => el("th", { scope: "col" }, el("a", { href: ROOT + item.page }, text(item, "head")), el("span", { class: "model" }, text(item, "model")),
      el("button", { type: "button", class: "quiet", onclick: () => this.drop(item.pin, found) }, "Remove"))));
    const lines = [["Suite", found.map((item) => item.data.suite)], ["Conditions", found.map((item) => item.data.groups[item.own[item.row.group]].title)], ["State", found.map((item) => text(item, "status"))]];
    const keys = [...new Set(found.flatMap((item) => item.data.columns.map((column) => column.key)))];
    const numbers = keys.map((key) => this.quantity(key, found)).filter(Boolean);
    const differ = (line) => new Set(line[1]).size > 1;
    const row = ([title, cells]) => el("tr", {}, el("th", { scope: "row" }, title), ...cells.map((cell) => el("td", {}, cell)));
    const table = (part) => el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Pinned rows side by side" }, el("table", { class: "plain wide" }, el("thead", {}, head.cloneNode(true)), el("tbody", {}, ...part.map(row))));
    const main = table([...lines, ...numbers.filter(differ)]);
    main.querySelector("thead").replaceChildren(head);
    const same = numbers.filter((line) => !differ(line));
    this.holder.replaceChildren(main, same.length ? el("details", {}, el("summary", {}, `The same in all of them: ${same.length}`), table(same)) : "");
    if (new Set(found.map((item) => item.data.suite + item.own[item.row.group])).size > 1) this.holder.prepend(el("p", { class: "reason" }, "These rows were measured under conditions that differ: only ratios to their own other sides can be set beside each other."));
  }

  quantity(key, found) {
    const cells = found.map((item) => {
      const at = item.data.columns.findIndex((column) => column.key === key);
      if (at < 0) return null;
      const cell = item.own[item.row.cells][at], column = item.data.columns[at];
      if (!Array.isArray(cell)) return null;
      const value = (number) => plainNumber(number / column.factor, cell[item.cell.places]);
      const low = cell[item.cell.low], high = cell[item.cell.high];
      const half = low === null || low === undefined || high === null || high === undefined ? "" : ` \u00b1 ${value(Math.max(cell[item.cell.value] - low, high - cell[item.cell.value], 0))}`;
      return `${value(cell[item.cell.value])}${half} ${column.unit}`.trimEnd();
    });
    if (cells.every((cell) => cell === null)) return null;
    const column = found.flatMap((item) => item.data.columns).find((item) => item.key === key);
    return [column.title, cells.map((cell) => cell ?? "\u2014")];
  }

  drop(pin, found) {
    Pins.all = Pins.all.filter((other) => other !== pin);
    Address.change({ pins: found.map((item) => item.pin).filter((other) => other !== pin).join(",") || "none" });
    this.read();
  }
}

// The page of a case: the badge and the trace as files.
function startCase() {
  const trace = document.getElementById("save-trace"), badge = document.getElementById("save-badge");
  const named = (button, ending) => button.dataset.name.replace(":", ".") + ending;
  if (trace) {
    trace.hidden = false;
    trace.addEventListener("click", async () => {
      const held = inert("trace");
      download(named(trace, ".trace.json"), "application/json", JSON.stringify(held.packed ? await unpacked(held.packed) : held));
    });
  }
  if (badge) {
    badge.hidden = false;
    badge.addEventListener("click", () => download(named(badge, ".svg"), "image/svg+xml", document.querySelector(".badge-svg svg").outerHTML));
  }
}
