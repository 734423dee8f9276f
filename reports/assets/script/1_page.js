// What every page shares: building elements from text only, inert JSON, downloads, hover notes and the theme.
// Nothing here or elsewhere assigns markup: names from records only ever become text nodes and attribute values.
const ROOT = document.currentScript.dataset.root || "";

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// A name with places where a narrow column may break it: behind its brackets, signs and commas.
function breakable(text) { return (text.match(/[^(=,_]+[(=,_]*|[(=,_]+/g) || [text]).flatMap((part, place) => place ? [el("wbr"), part] : [part]); }

function inert(id) {
  const block = document.getElementById(id);
  return block ? JSON.parse(block.textContent) : null;
}

// A column's title with its unit; the title alone of what has none.
function headed(column) {
  return column.unit ? `${column.title} (${column.unit})` : column.title;
}

// What `reports/packing.py` packed: deflated JSON, spelled in base64.
async function unpacked(text) {
  if (!("DecompressionStream" in window)) throw new Error("this browser is too old to unpack its data");
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return JSON.parse(await new Response(stream).text());
}

// A number with a fixed count of decimals, thin spaces between thousands and a true minus sign, as `reports/numbers.py`.
function plainNumber(value, places) {
  const text = value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places }).replaceAll(",", "\u202f");
  return /[1-9]/.test(text) ? text.replace("-", "\u2212") : text.replace("-", "");  // there is no -0.00
}

// ---- data in files of the site's own: a page from disk may load scripts and nothing else ----
const Data = {
  got: {}, waiting: {}, files: {},
  put(name, value) { this.got[name] = value; this.waiting[name]?.forEach((ready) => ready(value)); },
  // The data of a name, from the file that hands it over; the same name in another file takes its place.
  load(name, path) {
    delete this.got[name];
    return new Promise((ready, failed) => {
      this.waiting[name] = [ready];
      const script = el("script", { src: ROOT + path });
      script.addEventListener("error", () => failed(new Error(path + " could not be read")));
      document.head.append(script);
    });
  },
  // A file that hands over several things by name; it is read once.
  file(path) {
    this.files[path] ??= new Promise((ready, failed) => {
      const script = el("script", { src: ROOT + path });
      script.addEventListener("load", ready);
      script.addEventListener("error", () => failed(new Error(path + " could not be read")));
      document.head.append(script);
    });
    return this.files[path];
  },
};
function waterlineData(name, value) { Data.put(name, value); }

// ---- what is chosen lives in the address behind #, so that a link brings it back ----
const Address = {
  get parts() { return new URLSearchParams(location.hash.slice(1)); },
  // Of several parts of a page each keeps its own entries; empty values are left out.
  change(entries) {
    const parts = this.parts;
    for (const [name, value] of Object.entries(entries)) {
      parts.delete(name);
      for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") parts.append(name, one);
    }
    const text = parts.toString();
    history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
  },
};

// ---- a box to type in, for menus of more than a dozen entries ----
const MANY = 12;
function typeIn(entries, label) {
  const box = el("input", { type: "search", class: "typein", placeholder: "Type to find", "aria-label": label, autocomplete: "off" });
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const [node, text] of entries) node.hidden = !words.every((word) => text.toLowerCase().includes(word));
  });
  box.addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });
  return box;
}

// The same for a select: the entries that do not fit are taken out while something is typed; the chosen one stays.
function typeInto(select, label) {
  const options = [...select.options];
  if (options.length <= MANY) return null;
  const box = el("input", { type: "search", class: "typein", placeholder: "Type to find", "aria-label": label, autocomplete: "off" });
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = options.filter((option) => words.every((word) => option.textContent.toLowerCase().includes(word)));
    const chosen = select.value, shown = kept.length ? kept : options;
    select.replaceChildren(...shown);
    select.value = shown.some((option) => option.value === chosen) ? chosen : shown[0].value;
    if (select.value !== chosen) select.dispatchEvent(new Event("change", { bubbles: true }));
  });
  select.before(box);
  return box;
}

function download(name, type, content) {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A field of a CSV file; a leading = + - @ of a text would be run as a formula by a spreadsheet, so it gets a quote mark.
function csvField(value) {
  if (value === null || value === undefined) return "";
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text;
  return /[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

const csvText = (lines) => lines.map((line) => line.map(csvField).join(",")).join("\r\n") + "\r\n";

// ---- theme: auto follows the system; a choice is remembered where the browser allows it ----
const Theme = {
  names: ["auto", "light", "dark"],
  listeners: [],
  system: window.matchMedia("(prefers-color-scheme: dark)"),
  stored() {
    try { return localStorage.getItem("waterline-theme") || "auto"; } catch { return "auto"; }
  },
  get chosen() { return document.documentElement.dataset.theme || "auto"; },
  get now() {
    if (this.printing) return "light";
    return this.chosen === "auto" ? (this.system.matches ? "dark" : "light") : this.chosen;
  },
  choose(name) {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    try { localStorage.setItem("waterline-theme", name); } catch { /* a page from disk may not store */ }
    this.tell();
  },
  tell() { this.listeners.forEach((listener) => listener(this.now)); },
  start() {
    const button = document.getElementById("theme");
    const label = () => { button.firstElementChild.textContent = this.chosen; };
    button.hidden = false;
    button.addEventListener("click", () => {
      this.choose(this.names[(this.names.indexOf(this.chosen) + 1) % this.names.length]);
      label();
    });
    this.system.addEventListener("change", () => this.tell());
    label();
  },
};
{
  const stored = Theme.stored();
  if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;
}

// ---- hover notes that also open on keyboard focus; their text is the title that screen readers get ----
const Tip = {
  node: null,
  show(target) {
    const text = target.dataset.tip;
    if (!text) return;
    this.hide();
    this.node = el("div", { class: "tip", role: "tooltip" }, text);
    document.body.append(this.node);
    const at = target.getBoundingClientRect(), own = this.node.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left), window.innerWidth - own.width - 8);
    const below = at.bottom + 8 + own.height < window.innerHeight;
    this.node.style.left = left + "px";
    this.node.style.top = (below ? at.bottom + 8 : Math.max(4, at.top - own.height - 8)) + "px";
  },
  hide() { if (this.node) { this.node.remove(); this.node = null; } },
  start() {
    const find = (event) => event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    for (const [enter, leave] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
      document.addEventListener(enter, (event) => { const target = find(event); if (target) this.show(target); });
      document.addEventListener(leave, () => this.hide());
    }
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") this.hide(); });
    for (const node of document.querySelectorAll(".missing[title], .badge[title]")) {
      node.dataset.tip = node.title;
      node.removeAttribute("title");
      if (!node.hasAttribute("tabindex")) node.tabIndex = 0;
    }
  },
};

// ---- copy buttons ----
function startCopying() {
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      const before = button.textContent;
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        unfold(source);
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = before; }, 1600);
    });
  }
}

// Menus close on Escape and on a click outside.
function startMenus() {
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
}

// How long ago the newest row of a suite is, counted from today.
function startAges() {
  for (const node of document.querySelectorAll("time[data-age]")) {
    const days = Math.floor((Date.now() - Date.parse(node.dateTime)) / 86400000);
    if (days >= 0) node.after(el("span", { class: "model" }, days === 0 ? "today" : days === 1 ? "a day ago" : `${days} days ago`));
  }
}
