// What every script of the page uses. Text from the data goes through textContent and setAttribute only.
const SVG = "http://www.w3.org/2000/svg";
const html = document.documentElement;
const $ = (selector, root = document) => root.querySelector(selector);

/** Make an element: `make("li", {class: "card", click: act}, "text", child)`. What is null or false is left out. */
function make(tag, attributes = {}, ...children) {
  const made = /^(svg|use|g|rect|line|path)$/.test(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Show control characters and those that reorder text as escapes, as the rest of the page does. */
const visible = (text) =>
  String(text).replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, (c) => {
    const code = c.codePointAt(0);
    const named = { 9: "\\t", 10: "\\n", 13: "\\r" }[code];
    return named || (code < 256 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u" + code.toString(16).padStart(4, "0"));
  });

const count = (value) => value.toLocaleString("en-US");

/** Browser storage, which may be full, forbidden or shared with every other file: false where it could not be used. */
const kept = {
  get(key) {
    try {
      return JSON.parse(localStorage.getItem(key));
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  },
};

const press = (click, ...inside) => make("button", { type: "button", click }, ...inside);
const labelled = (text, ...inside) => make("label", {}, make("span", {}, text), ...inside);

/** A select with [value, text] options. */
const choose = (label, options, change) => {
  const box = make("select", { change: () => change(box.value) }, options.map(([value, text]) => make("option", { value }, text)));
  return labelled(label, box);
};

// Light, dark, or as the system has it.
const THEMES = ["auto", "light", "dark"];
const theme = make("button", { type: "button", class: "theme", click: () => wear(THEMES[(THEMES.indexOf(worn()) + 1) % 3]) });
const worn = () => html.dataset.theme || "auto";
function wear(name) {
  html.dataset.theme = name;
  theme.textContent = `Theme: ${name}`;
  kept.set("lightning_inf:theme", name);
}
const last = kept.get("lightning_inf:theme");
wear(THEMES.includes(last) ? last : "auto");
$(".product").append(theme);
