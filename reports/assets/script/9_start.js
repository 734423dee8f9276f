// Start what the page has; a part that fails says so in its place and leaves the others alone.
document.addEventListener("DOMContentLoaded", () => {
  Theme.start();
  Tip.start();
  startMenus();
  startCopying();
  startAges();
  Search.start();
  startClaims();
  const node = document.getElementById("leaderboard");
  if (node && Data.got.rows) {
    const board = new Leaderboard(node);
    const chooser = document.getElementById("chooser");
    if (chooser) new Chooser(chooser, board);
    const scatter = document.getElementById("scatter");
    if (scatter) new Scatter(scatter, board);
    const parallel = document.getElementById("parallel");
    if (parallel) new Parallel(parallel, board);
  }
  const pinned = document.getElementById("pinned");
  if (pinned) new Pinned(pinned);
  foldOnPhones();
  Pins.start();
  startCase();
  View.start();
  View.show();
  TableKeys.startAll();
  Figures.start();
  startContents();
  openAtSection(node);
});

// A linked view opens at the section of what was chosen last, which stands last in the address.
function openAtSection(board) {
  const target = [...Address.parts.keys()].reverse().map((name) => sectionOf(name, board)).find((node) => node && !node.closest("[hidden]"));
  if (!target) return;
  unfold(target);
  for (const fold of target.querySelectorAll(":scope > details.fold")) fold.open = true;
  target.scrollIntoView({ block: "start", behavior: "instant" });
}

// What an entry of the address names, or where it is chosen: a figure, the table, the question above it, a chart of its rows.
function sectionOf(name, board) {
  const named = document.getElementById(name);
  if (named?.matches("[data-figure], section")) return named;
  if (["sort", "order", "find", "columns"].includes(name) || name.startsWith("not-")) return board;
  if (["budget", "conditions"].includes(name)) return document.getElementById("chooser");
  return document.getElementById(name.match(/^(scatter|parallel)-/)?.[1]);
}

// Opens all that a node is folded away in.
function unfold(node) {
  for (let fold = node.parentElement?.closest("details"); fold; fold = fold.parentElement?.closest("details")) fold.open = true;
}

// On a phone the sections further down are their headings, so that a page is a few screens long.
function foldOnPhones() {
  if (!window.matchMedia("(max-width: 640px)").matches) return;
  for (const section of document.querySelectorAll("section[data-fold]")) {
    const title = section.querySelector("h2"), rest = [...section.childNodes].filter((node) => node !== title);
    section.append(el("details", { class: "fold" }, el("summary", {}, title), ...rest));
  }
}

// Contents of a long page: its headings, at the left where there is room, else as a menu.
function startContents() {
  const titles = [...document.querySelectorAll("main h2[id]")].filter((title) => !title.closest("[hidden]"));
  if (titles.length < 4) return;
  const links = titles.map((title) => el("li", {}, el("a", { href: "#" + title.id, onclick: (event) => { event.preventDefault(); unfold(title); title.scrollIntoView(); } }, title.textContent.trim())));
  const menu = el("details", { class: "contents" }, el("summary", {}, "On this page"), el("ol", {}, ...links));
  const wide = window.matchMedia("(min-width: 1640px)");
  const fit = () => { menu.open = wide.matches; };
  wide.addEventListener("change", fit);
  fit();
  (document.querySelector("main h1 + .lede") ?? document.querySelector("main h1")).after(menu);
}
