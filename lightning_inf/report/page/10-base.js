// What every script of the page uses. Text from the data goes through textContent and setAttribute only.
const SVG = "http://www.w3.org/2000/svg";

/** Find one element. */
const $ = (selector, root = document) => root.querySelector(selector);

/** Make an element: `make("li", {class: "card"}, "text", child)`; an attribute that is null or false is left out. */
function make(tag, attributes = {}, ...children) {
  const made = /^(svg|use|g|rect|line|path|text|title)$/.test(tag)
    ? document.createElementNS(SVG, tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}
