// The page of claims: filters by suite, paper and verdict, kept in the address.
function startClaims() {
  const holder = document.getElementById("claim-filters");
  if (!holder) return;
  const items = [...document.querySelectorAll(".claims.lines > li")];
  const line = document.getElementById("claim-count");
  const filters = [["suite", "Suite"], ["paper", "Paper"], ["verdict", "Verdict"]].map(([name, title]) => claimFilter(name, title, items)).filter(Boolean);
  const show = () => {
    let count = 0;
    const filtered = filters.some(({ select }) => select.value);
    if (filtered) document.querySelectorAll("section.verdict > details").forEach((fold) => { fold.open = true; });
    for (const item of items) {
      item.hidden = !filters.every(({ name, select }) => !select.value || item.dataset[name] === select.value);
      if (!item.hidden) count += 1;
    }
    for (const section of document.querySelectorAll("section.verdict")) section.hidden = ![...section.querySelectorAll(".claims > li")].some((item) => !item.hidden);
    line.textContent = count === items.length ? `${count} claims` : `${count} of ${items.length} claims`;
  };
  const read = () => {
    const parts = Address.parts;
    for (const { name, select, options } of filters) select.value = options.includes(parts.get(name)) ? parts.get(name) : "";
    show();
    const target = /^#claim-\d+$/.test(location.hash) ? document.querySelector(location.hash) : null;
    if (target) { unfold(target); target.querySelector("details").open = true; target.scrollIntoView({ block: "center" }); }
  };
  for (const { name, select, title } of filters) {
    holder.append(el("label", { class: "choice" }, title, select));
    typeInto(select, "Find in " + title);
    select.addEventListener("change", () => { Address.change({ [name]: select.value }); show(); });
  }
  holder.hidden = !filters.length;
  read();
  window.addEventListener("hashchange", read);
}

// One filter with how many claims each of its values has; papers stand under their suites. None where all are alike.
function claimFilter(name, title, items) {
  const counts = new Map(), suiteOf = new Map();
  for (const item of items) {
    const value = item.dataset[name];
    counts.set(value, (counts.get(value) ?? 0) + 1);
    suiteOf.set(value, item.dataset.suite);
  }
  if (counts.size < 2) return null;
  const options = [...counts.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const suites = [...new Set(options.map((value) => suiteOf.get(value)))].sort();
  const option = (value) => el("option", { value }, `${value} (${counts.get(value)})`);
  const grouped = name === "paper" && suites.length > 1 && options.length <= MANY;
  const inside = grouped ? suites.map((suite) => el("optgroup", { label: suite }, ...options.filter((value) => suiteOf.get(value) === suite).map(option)))
    : name === "paper" ? [...options].sort((a, b) => suiteOf.get(a).localeCompare(suiteOf.get(b)) || a.localeCompare(b)).map((value) => el("option", { value }, `${suites.length > 1 ? suiteOf.get(value) + ": " : ""}${value} (${counts.get(value)})`))
    : options.map(option);
  return { name, title, options, select: el("select", {}, el("option", { value: "" }, "all"), ...inside) };
}
