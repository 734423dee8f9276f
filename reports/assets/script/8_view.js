// What one came from: the page of a case leads back there, and to the cases before and after it in what was shown.
const View = {
  key: "waterline-view",

  // `pages` are those of the cases that were shown, in their order; `what` they stood in, and where on this page.
  remember(pages, what, section = "") {
    const here = location.pathname.split("/").slice(ROOT ? -2 : -1).join("/");
    const from = here + (location.hash || (section && "#" + section));
    try { sessionStorage.setItem(this.key, JSON.stringify({ from, what, pages: [...new Set(pages)] })); } catch { /* a page from disk may not store */ }
  },

  forget() { try { sessionStorage.removeItem(this.key); } catch { /* nothing was kept */ } },

  get last() {
    try { return JSON.parse(sessionStorage.getItem(this.key)); } catch { return null; }
  },

  // The page of a case that a link leads to, as a path from the folder of the site.
  pageOf(link) {
    const path = link.getAttribute("href").split("#")[0];
    return path.startsWith(ROOT + "cases/") ? path.slice(ROOT.length) : null;
  },

  // A case is opened from a table or a list: its neighbours there are the view. From one case to the next it stays; what
  // was searched for has none. The table of the rows tells more than it shows, and remembers by itself.
  opened(link) {
    if (link.closest(".finder")) { this.forget(); return; }
    if (!this.pageOf(link) || link.closest("#leaderboard") || document.getElementById("before")) return;
    const holder = link.closest("table, section") ?? link.parentElement;
    const pages = [...holder.querySelectorAll("a[href]")].map((other) => this.pageOf(other)).filter(Boolean);
    this.remember(pages, holder.matches("table") ? "the table" : "the list", link.closest("section[id]")?.id);
  },

  start() {
    document.addEventListener("click", (event) => {
      const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
      if (link) this.opened(link);
    });
  },

  // On the page of a case: the links to the rows before and after it.
  show() {
    const before = document.getElementById("before"), after = document.getElementById("after");
    const view = before ? this.last : null, here = "cases/" + location.pathname.split("/").pop();
    const place = view?.pages.indexOf(here) ?? -1;
    if (place < 0) return;
    for (const [link, at] of [[before, place - 1], [after, place + 1]]) {
      link.hidden = !(at in view.pages);
      if (at in view.pages) { link.href = ROOT + view.pages[at]; link.title = `in ${view.what} one came from`; }
    }
    before.before(el("a", { href: ROOT + view.from }, "back to " + view.what));
  },
};
