// What a person decided, kept by run in this browser, and on its way to and from decisions.csv.
const FIELDS = ["sample_id", "index", "given_label", "decision", "new_label", "reviewer", "note", "decided_at", "run_id", "fingerprint", "is_label_issue"];
const DECISIONS = ["accept", "keep", "relabel", "drop", "unsure"];
const decisions = { by: new Map(), past: [], reviewer: "", key: "", saved: true, changed: [] };

const entry_of = (row) => decisions.by.get(indexOf(row));

function open_decisions() {
  decisions.key = `lightning_inf:${data.run}:${data.fingerprint}`;
  const found = kept.get(decisions.key);
  decisions.reviewer = found?.reviewer || "";
  for (const [index, entry] of Object.entries(found?.by || {})) decisions.by.set(Number(index), entry);
}

/** Keep all of it; where that fails the page says so. */
function keep_decisions() {
  decisions.saved = kept.set(decisions.key, { reviewer: decisions.reviewer, by: Object.fromEntries(decisions.by) });
  for (const tell of decisions.changed) tell();
}

function decide(row, decision, label = null, note = "") {
  const index = indexOf(row);
  decisions.past.push([index, decisions.by.get(index)]);
  decisions.by.set(index, { decision, label, note, reviewer: decisions.reviewer, at: new Date().toISOString().slice(0, 19) + "Z" });
  keep_decisions();
}

/** Take back the last decision; gives its index. */
function undo() {
  if (!decisions.past.length) return null;
  const [index, before] = decisions.past.pop();
  if (before) decisions.by.set(index, before);
  else decisions.by.delete(index);
  keep_decisions();
  return index;
}

// A spreadsheet would run cells that start like this; the importer takes the quote off again.
const guarded = (text) => (/^['=+\-@\t\r]/.test(text) ? "'" + text : text);
const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function to_csv() {
  const lines = [FIELDS];
  for (const [index, entry] of [...decisions.by].sort((a, b) => a[0] - b[0])) {
    const row = row_of(index);
    if (row === null) continue;
    const label = entry.label === null ? "" : String(entry.label);
    const given = value("label", row) >= 0 ? String(value("label", row)) : "";
    lines.push([guarded(idOf(row)), String(index), given, entry.decision, label, guarded(entry.reviewer), guarded(entry.note), entry.at, data.run ?? "", data.fingerprint, { 0: "false", 1: "true" }[value("is_label_issue", row)] ?? ""]);
  }
  return lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

function parse_csv(text) {
  const rows = [[]];
  const token = /("(?:[^"]|"")*"|[^,\r\n]*)(,|\r?\n|$)/gy;
  for (let match; token.lastIndex < text.length && (match = token.exec(text)); ) {
    const raw = match[1];
    rows.at(-1).push(raw.startsWith('"') ? raw.slice(1, -1).replaceAll('""', '"') : raw);
    if (match[2] !== ",") rows.push([]);
  }
  return rows.filter((row) => row.length > 1);
}

/** Take decisions in, or throw what is wrong with the file. */
function from_csv(text) {
  const [head, ...rows] = parse_csv(text.replace(/^\ufeff/, ""));
  const missing = FIELDS.slice(0, 10).filter((name) => !head?.includes(name));
  if (missing.length) throw new Error(`expected the columns of decisions.csv, found none called ${missing.join(", ")}`);
  const entries = rows.map((row) => Object.fromEntries(head.map((name, at) => [name, (row[at] ?? "").replace(/^'(?=['=+\-@\t\r])/, "")])));
  for (const entry of entries) {
    if (entry.fingerprint !== data.fingerprint) throw new Error("this file is about another data set (its fingerprint differs)");
    if (!DECISIONS.includes(entry.decision)) throw new Error(`unknown decision "${entry.decision}" for index ${entry.index}`);
    if (row_of(Number(entry.index)) === null) throw new Error(`index ${entry.index} is not in this page`);
  }
  for (const { index, decision, new_label, note, reviewer, decided_at } of entries) {
    decisions.by.set(Number(index), { decision, label: new_label === "" ? null : Number(new_label), note, reviewer, at: decided_at });
  }
  keep_decisions();
  return entries.length;
}

function row_of(index) {
  if (!data.column.index) return index >= 0 && index < data.rows ? index : null;
  const row = data.column.index.indexOf(index);
  return row < 0 ? null : row;
}
