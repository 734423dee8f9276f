// The search box of every page: an index that is made with the site, loaded when the box is first used.
const Search = {
  most: 24,
  index: null,
  shown: [],
  at: -1,
  start() {
    const holder = document.querySelector(".finder");
    if (!holder) return;
    this.box = document.getElementById("search");
    this.list = document.getElementById("found");
    holder.hidden = false;
    this.box.addEventListener("focus", () => this.load());
    this.box.addEventListener("input", () => this.load().then(() => this.find()));
    this.box.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("keydown", (event) => {
      const typing = event.target instanceof Element && event.target.closest("input, select, textarea, [contenteditable]");
      if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.box.focus();
      this.box.select();
    });
    document.addEventListener("click", (event) => { if (!holder.contains(event.target)) this.close(); });
  },

  load() {
    this.loading ??= Data.load("search", "assets/search.js").then((index) => {
      this.index = index;
      this.texts = index.entries.map((entry) => `${entry[1]} ${entry[2]}`.toLowerCase());
    }).catch(() => { this.say("The index of the search could not be read."); });
    return this.loading;
  },

  // Every word must occur; names that begin with the first word come first, then in the order of kinds.
  find() {
    const words = this.box.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length || !this.index) { this.close(); return; }
    const found = [];
    this.index.entries.forEach((entry, place) => {
      if (!words.every((word) => this.texts[place].includes(word))) return;
      const name = entry[1].toLowerCase(), joined = words.join(" ");
      found.push([name === joined ? 0 : name.startsWith(joined) ? 1 : name.includes(joined) ? 2 : 3, entry[0], place, entry]);
    });
    found.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
    this.shown = found.slice(0, this.most).map((item) => item[3]);
    this.at = this.shown.length ? 0 : -1;
    this.list.replaceChildren(...this.shown.map((entry, place) => el("li", { role: "option", id: `found-${place}`, "aria-selected": place === 0 ? "true" : "false" },
      el("a", { href: ROOT + entry[3], tabindex: "-1" }, el("span", { class: "kind" }, this.index.kinds[entry[0]]), el("span", { class: "name" }, entry[1]), el("span", { class: "more" }, entry[2])))));
    if (!this.shown.length) this.list.replaceChildren(el("li", { class: "none" }, "Nothing here is called so."));
    else if (found.length > this.most) this.list.append(el("li", { class: "none" }, `${found.length - this.most} more: type another word.`));
    this.open();
  },

  say(text) { this.list.replaceChildren(el("li", { class: "none" }, text)); this.open(); },
  open() { this.list.hidden = false; this.box.setAttribute("aria-expanded", "true"); this.mark(); },
  close() {
    this.list.hidden = true;
    this.box.setAttribute("aria-expanded", "false");
    this.box.removeAttribute("aria-activedescendant");
  },

  mark() {
    this.list.querySelectorAll("[role=option]").forEach((node, place) => node.setAttribute("aria-selected", place === this.at ? "true" : "false"));
    const node = document.getElementById(`found-${this.at}`);
    if (node) { this.box.setAttribute("aria-activedescendant", node.id); node.scrollIntoView({ block: "nearest" }); }
  },

  key(event) {
    if (event.key === "Escape") { this.close(); this.box.value = ""; return; }
    if (this.list.hidden || !this.shown.length) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      this.at = (this.at + (event.key === "ArrowDown" ? 1 : -1) + this.shown.length) % this.shown.length;
      this.mark();
    } else if (event.key === "Enter") {
      event.preventDefault();
      View.forget();
      location.href = ROOT + this.shown[this.at][3];
      this.close();
    }
  },
};
