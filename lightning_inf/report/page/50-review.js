// Review: one sample at a time, by buttons or keys.
const review = { dialog: null, row: null, parts: {}, keys: kept.get("lightning_inf:keys") !== false };

const ACTIONS = {
  y: ["Accept suggestion", () => decide_here("accept", value("suggested_label", review.row))],
  n: ["Keep label", () => decide_here("keep")],
  r: ["Relabel", () => review.parts.find.focus()],
  x: ["Drop", () => decide_here("drop")],
  u: ["Unsure", () => decide_here("unsure")],
  z: ["Undo", take_back],
  k: ["Previous", () => step(-1)],
  j: ["Next", () => step(1)],
  g: ["Next undecided", next_undecided],
};

const has_label = () => value("label", review.row) >= 0;
const has_suggestion = () => value("suggested_label", review.row) >= 0 && value("suggested_label", review.row) !== value("label", review.row);

function decide_here(decision, label = null) {
  if ((decision === "accept" && !has_suggestion()) || (decision === "relabel" && !has_label())) return;
  decide(review.row, decision, label, review.parts.note.value);
  next_undecided();
}

function take_back() {
  const index = undo();
  if (index !== null) show_sample(row_of(index));
}

function step(by) {
  const at = view.rows.indexOf(review.row) + by;
  if (at >= 0 && at < view.rows.length) show_sample(view.rows[at]);
}

/** Go on from here, once around; where all is decided, stay and say so. */
function next_undecided() {
  const at = view.rows.indexOf(review.row);
  const order = [...view.rows.slice(at + 1), ...view.rows.slice(0, at + 1)];
  show_sample(order.find((row) => !entry_of(row)) ?? review.row);
}

function show_sample(row) {
  const { parts } = review;
  review.row = row;
  const entry = entry_of(row);
  parts.picture.replaceChildren(thumb(row, true));
  parts.facts.replaceChildren(...[change(row), who(row), chips(row), verdict_of(entry)].filter(Boolean));
  if (parts.find === document.activeElement || parts.note === document.activeElement) review.dialog.focus();
  parts.note.value = entry?.note || "";
  parts.find.value = "";
  parts.y.disabled = !has_suggestion();
  parts.relabel.hidden = !has_label();
  suggest();
  tell();
}

/** Progress, and how the rest of it stands. */
function tell() {
  const { parts } = review;
  if (!parts.progress) return;
  const done = view.rows.filter((row) => entry_of(row)).length;
  parts.progress.max = view.rows.length || 1;
  parts.progress.value = done;
  parts.said.textContent = `${count(done)} of ${count(view.rows.length)} decided; this is ${count(view.rows.indexOf(review.row) + 1)}`;
  parts.z.disabled = !decisions.past.length;
}

/** Classes that fit what is typed; the digits choose among the first nine. */
function suggest() {
  const { find, list } = review.parts;
  const typed = find.value.trim().toLowerCase();
  const fits = Object.entries(data.classes).filter(([key, name]) => !typed || key === typed || name.toLowerCase().includes(typed));
  const button = ([key, name], at) =>
    press(() => decide_here("relabel", Number(key)), !typed && at < 9 && make("kbd", {}, at + 1), " ", make("bdi", {}, visible(name)));
  list.replaceChildren(...fits.slice(0, typed ? 12 : 9).map(button), fits.length ? "" : "No class is called that.");
}

function pressed(event) {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "checkbox";
  if (typing) {
    if (event.key === "Enter" && event.target === review.parts.find) $("button", review.parts.list)?.click(), event.preventDefault();
    return;
  }
  if (!review.keys || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  const act = /^[1-9]$/.test(key) ? has_label() && review.parts.list.querySelectorAll("button")[key - 1] : !review.parts[key]?.disabled && ACTIONS[key];
  if (!act) return;
  event.preventDefault();
  if (Array.isArray(act)) act[1]();
  else act.click();
}

function build_review() {
  const { parts } = review;
  const button = (key) => (parts[key] = make("button", { type: "button", class: key === "y" ? "main" : null, click: ACTIONS[key][1], "aria-keyshortcuts": key }, ACTIONS[key][0].replace("label", data.noun), " ", make("kbd", {}, key.toUpperCase())));
  const keys = make("input", { type: "checkbox", change: () => kept.set("lightning_inf:keys", (review.keys = keys.checked)) });
  keys.checked = review.keys;
  parts.find = make("input", { type: "search", autocomplete: "off", input: suggest, placeholder: "type to filter" });
  parts.list = make("div", { class: "classes" });
  parts.note = make("input", { autocomplete: "off", maxlength: 500 });
  parts.picture = make("div", { class: "big" });
  parts.facts = make("div", { class: "facts-of" });
  parts.progress = make("progress", { "aria-label": "Samples decided" });
  parts.said = make("p", { role: "status" });
  parts.relabel = make("div", { class: "relabel" }, labelled(["Relabel ", make("kbd", {}, "R")], parts.find), parts.list);
  const end = press(() => review.dialog.close(), "Close ", make("kbd", {}, "Esc"));
  review.dialog = make("dialog", { class: "review", "aria-label": "Review", tabindex: "-1", keydown: pressed, close: () => draw_gallery() },
    make("div", { class: "row top" }, parts.progress, parts.said, end),
    make("div", { class: "sides" }, parts.picture, make("div", {}, parts.facts,
      make("div", { class: "row acts" }, ["y", "n", "x", "u"].map(button)), parts.relabel,
      labelled("Note, kept with the next decision", parts.note),
      make("div", { class: "row" }, ["z", "k", "j", "g"].map(button)),
      make("label", { class: "check" }, keys, " Single-key shortcuts"))));
  document.body.append(review.dialog);
  decisions.changed.push(tell);
}

function open_review(row) {
  if (!view.rows.length) return;
  const undecided = view.rows.find((one) => !entry_of(one));
  show_sample(row ?? undecided ?? view.rows[0]);
  review.dialog.showModal();
  review.dialog.focus();
}

/** Save, load, and how many there are. */
function build_exchange() {
  const said = make("p", { role: "status" });
  const tally = () => {
    const by = {};
    for (const { decision } of decisions.by.values()) by[decision] = (by[decision] || 0) + 1;
    const list = DECISIONS.filter((name) => by[name]).map((name) => `${count(by[name])} ${name}`).join(", ");
    const lost = decisions.saved ? "" : " This browser does not keep them: export before you close the page.";
    said.textContent = `${count(decisions.by.size)} decided${list ? `: ${list}` : ""}.${lost}`;
    said.classList.toggle("alarm", !decisions.saved);
  };
  const save = () => {
    const url = URL.createObjectURL(new Blob([to_csv()], { type: "text/csv" }));
    make("a", { href: url, download: "decisions.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  const load = async () => {
    try {
      const taken = from_csv(await file.files[0].text());
      refresh();
      said.textContent += ` ${count(taken)} came from the file.`;
    } catch (error) {
      said.textContent = `Nothing was imported: ${error.message}.`;
      said.classList.add("alarm");
    }
    file.value = "";
  };
  const file = make("input", { type: "file", accept: ".csv,text/csv", change: load });
  const name = make("input", { autocomplete: "name", change: () => ((decisions.reviewer = name.value), keep_decisions()) });
  name.value = decisions.reviewer;
  $("#decisions").append(
    labelled("Reviewer", name), press(save, "Export decisions.csv"), labelled("Import decisions.csv", file), said);
  decisions.changed.push(tally);
  tally();
}
