// Section 2: filters, order, pages. The first page is in the document already, in the order of the default list.
const PAGE = 60;
const view = { rows: [], page: 0, sort: "", search: "", label: "", pair: "", state: "", flags: {}, suspects: 0 };

const STATES = [
  ["", "any"], ["open", "undecided"], ["done", "decided"],
  ...DECISIONS.map((name) => [name, name]),
];

const pair_of = (row) => `${value("label", row)} ${value("suggested_label", row)}`;

function matches(row) {
  const decided = entry_of(row);
  if (view.label !== "" && value("label", row) !== Number(view.label)) return false;
  if (view.pair && pair_of(row) !== view.pair) return false;
  if (view.state === "open" ? decided : view.state === "done" ? !decided : view.state && decided?.decision !== view.state) return false;
  for (const [ranking, wanted] of Object.entries(view.flags)) if (wanted !== null && flagged(ranking, row) !== wanted) return false;
  const text = view.search.trim();
  return !text || String(indexOf(row)) === text.replace(/^#/, "") || idOf(row).toLowerCase().includes(text.toLowerCase());
}

/** Filter and sort anew. A sample without a rank comes last. */
function refresh(page = 0) {
  const ranks = data.column[view.sort];
  const rows = [];
  for (let row = 0; row < data.rows; row++) if (matches(row)) rows.push(row);
  if (ranks && view.sort !== "index") rows.sort((a, b) => (ranks[a] || 1e9) - (ranks[b] || 1e9) || a - b);
  view.rows = rows;
  turn(page);
}

function turn(page) {
  const pages = Math.max(1, Math.ceil(view.rows.length / PAGE));
  view.page = Math.min(Math.max(page, 0), pages - 1);
  draw_gallery();
  tools.where.textContent = view.rows.length
    ? `${count(view.rows.length)} of ${count(data.rows)} samples, page ${count(view.page + 1)} of ${count(pages)}`
    : `No sample of ${count(data.rows)} fits these filters.`;
  tools.review.textContent = unfiltered() ? `Review the ${view.suspects > 1 ? `${count(view.suspects)} suspects` : "suspect"}` : "Review these";
  tools.review.disabled = !view.rows.length;
  for (const bar of tools.bars) {
    bar.before.disabled = view.page === 0;
    bar.after.disabled = view.page === pages - 1;
  }
}

function draw_gallery() {
  const shown = view.rows.slice(view.page * PAGE, (view.page + 1) * PAGE);
  $("#gallery").replaceChildren(...shown.map(card));
}

function card(row) {
  const decided = entry_of(row);
  const open = make("button", { type: "button", class: "look", "aria-label": `Review sample ${indexOf(row)}`, click: () => open_review(row) }, "Review");
  return make("li", { class: suspect(row) ? "card suspect" : "card" }, thumb(row, true), change(row), who(row), chips(row), verdict_of(decided), open);
}

const verdict_of = (entry) =>
  entry && make("p", { class: `decided ${entry.decision}` }, entry.label === null ? entry.decision : [`${entry.decision}: `, make("bdi", {}, visible(className(entry.label)))]);

/** Given -> suggested among the suspects, the most frequent first. */
function pairs() {
  const found = new Map();
  for (let row = 0; row < data.rows; row++) {
    if (!suspect(row) || data.column.target) continue;
    const key = pair_of(row);
    found.set(key, (found.get(key) || 0) + 1);
  }
  return [...found].sort((a, b) => b[1] - a[1]).slice(0, 200);
}

const tools = { bars: [], flags: {} };
function build_tools() {
  const set = (name) => (chosen) => ((view[name] = chosen), refresh());
  const search = make("input", { type: "search", autocomplete: "off", spellcheck: "false", input: () => set("search")(search.value) });
  const label = (key) => visible(className(Number(key)) ?? "–");
  const classes = Object.keys(data.classes).map((key) => [key, label(key)]);
  const between = pairs().map(([key, times]) => [key, `${key.split(" ").map(label).join(" → ")} (${count(times)})`]);
  const classed = data.column.label && classes.length > 0;
  const sorts = [...data.rankings.map(([ranking, name]) => [ranking, visible(name)]), ["index", "index"]];
  view.sort = sorts[0][0];
  for (let row = 0; row < data.rows; row++) view.suspects += suspect(row);
  tools.pair = between.length > 0 && choose("Given → suggested", [["", "all"], ...between], set("pair"));
  tools.state = choose("Decision", STATES, set("state"));
  tools.where = make("p", { class: "where", role: "status" });
  $("#tools").append(
    make("div", { class: "row" },
      labelled("Index or id", search),
      classed && choose("Given class", [["", "all"], ...classes], set("label")),
      tools.pair,
      tools.state, choose("Sort by rank of", sorts, set("sort"))),
    make("div", { class: "row", role: "group", "aria-label": "Flagged by" }, make("span", { class: "quiet" }, "Flagged by"), data.rankings.map(flag_button)),
    make("div", { class: "row" }, tools.where, pager(), (tools.review = make("button", { type: "button", class: "main", click: review_these }))),
  );
  $("#gallery").after(make("div", { class: "row" }, pager()));
}

/** Any, yes, no: a button that goes round. */
function flag_button([ranking, name]) {
  const said = make("b");
  const set = (wanted) => {
    view.flags[ranking] = wanted;
    said.textContent = { true: "yes", false: "no", null: "any" }[wanted];
    button.className = `flag-${said.textContent}`;
  };
  const next = () => {
    set({ true: false, false: null, null: true }[view.flags[ranking]]);
    refresh();
  };
  const button = press(next, visible(name), ": ", said);
  set(null);
  tools.flags[ranking] = set;
  return button;
}

/** Without a filter, the suspects are reviewed; with one, what it leaves. */
const unfiltered = () => view.rows.length === data.rows && view.suspects > 0;
function review_these() {
  if (unfiltered()) {
    tools.flags.label_rank(true);
    refresh();
  }
  open_review();
}

function pager() {
  const button = (text, step) => press(() => { turn(view.page + step); if (!tools.bars[0].box.contains(document.activeElement)) $("#tools").scrollIntoView(); }, text);
  const bar = { before: button("← Previous", -1), after: button("Next →", 1) };
  bar.box = make("div", { class: "pager" }, bar.before, bar.after);
  tools.bars.push(bar);
  return bar.box;
}
