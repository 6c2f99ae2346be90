// The packed columns of `payload.py`, and what can be asked of a sample.
const TYPES = { f4: Float32Array, i1: Int8Array, i4: Int32Array, u2: Uint16Array, u4: Uint32Array };
let data = null;

async function unpack(text) {
  const raw = atob(JSON.parse(text).packed);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const found = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const start = Math.ceil((4 + length) / 8) * 8;
  found.column = {};
  for (const { name, type, at, scale } of found.columns) {
    found.column[name] = new TYPES[type](buffer, start + at, found.rows);
    if (scale) found.column[name].scale = scale;
  }
  return found;
}

const value = (name, row) => data.column[name]?.[row];
function quantity(name, row) {
  const column = data.column[name];
  if (!column || column[row] === 0xffff) return null;
  return column.scale[0] + column[row] * column.scale[1];
}
const indexOf = (row) => (data.column.index ? data.column.index[row] : row);
const idOf = (row) => (data.ids ? data.ids[row] : String(row));
const className = (label) => (label === undefined || label < 0 ? null : data.classes[label] ?? String(label));
const suspect = (row) => value("is_label_issue", row) === 1;

/** Whether a ranking flags a sample: the default list by its threshold, others by their first k. */
function flagged(ranking, row) {
  const rank = value(ranking, row);
  return ranking === "label_rank" ? suspect(row) : rank > 0 && rank <= data.k;
}

/** The picture, text or table of a sample, like the macro `thumb`. */
function thumb(row, large) {
  const index = indexOf(row);
  const example = (large && data.large[index]) || data.examples[index] || {};
  const name = `Sample ${index}`;
  if (example.kind === "image") {
    const picture = { class: example.small ? "thumb small" : "thumb", viewBox: example.view, role: "img", "aria-label": name };
    return make("svg", picture, make("use", { href: `#${example.sheet}` }));
  }
  const more = (left, what) => left > 0 && make("span", { class: "quiet" }, ` … ${count(left)} more${what}`);
  if (example.kind === "text") return make("blockquote", { class: "sample" }, visible(example.text), more(example.cut, " characters"));
  if (example.kind === "table") {
    const line = (key, text) => make("div", {}, make("dt", {}, visible(key)), make("dd", {}, visible(text)));
    const rest = example.more > 0 && line("…", `${count(example.more)} more`);
    return make("dl", { class: "sample" }, example.rows.map(([key, text]) => line(key, text)), rest);
  }
  return make("span", { class: "thumb nothing", role: "img", "aria-label": `${name}: no picture` });
}

/** Like the filter `plain`. */
const plain = (x) => (x === x ? String(Math.abs(x) >= 1e3 ? Math.round(x) : +x.toPrecision(3)) : "–");

/** Given and suggested label, or given and expected target, like the macro `change`. */
function change(row) {
  if (data.column.target) {
    const [given, expected] = ["target", "expected_target"].map((name) => plain(value(name, row)));
    return make("p", { class: "change" }, given, " → ", make("b", {}, expected), " expected");
  }
  const given = className(value("label", row));
  const suggested = className(value("suggested_label", row));
  const confidence = quantity("suggested_confidence", row);
  const other = suggested !== null && suggested !== given;
  if (given === null) return null;
  return make(
    "p", { class: "change" }, make("bdi", {}, visible(given)),
    other && [" → ", make("b", {}, make("bdi", {}, visible(suggested)))],
    other && confidence !== null && [" ", make("span", { class: "n" }, `${Math.round(confidence * 100)}%`)],
  );
}

const who = (row) => {
  const [index, id] = [indexOf(row), idOf(row)];
  return make("p", { class: "who" }, `#${index}`, id !== String(index) && [" ", make("bdi", { class: "id" }, visible(id))]);
};

/** Ranks by every method, like the macro `chips`. */
const chips = (row) =>
  make("dl", { class: "chips" }, data.rankings.map(([ranking, name]) => {
    const rank = value(ranking, row);
    const parts = [make("dt", {}, visible(name)), make("dd", {}, rank > 0 ? count(rank) : "–")];
    return make("div", { class: flagged(ranking, row) && "hit" }, parts);
  }));
