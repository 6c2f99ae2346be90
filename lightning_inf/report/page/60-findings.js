// Cells of the heatmap, and rows of its table, lead to the samples that they count.
function link_pairs() {
  const box = tools.pair && $("select", tools.pair);
  if (!box) return;
  const known = new Set([...box.options].map((option) => option.value));
  for (const counted of document.querySelectorAll("[data-pair]")) {
    const { pair } = counted.dataset;
    if (!known.has(pair)) continue;
    const show = () => {
      box.value = view.pair = pair;
      refresh();
      $("#tools").scrollIntoView();
      box.focus({ preventScroll: true });
    };
    if (counted.tagName === "TD") {
      const name = `Show the samples ${pair.split(" ").map((key) => visible(className(Number(key)) ?? "–")).join(" → ")}`;
      counted.replaceChildren(make("button", { type: "button", class: "leads", "aria-label": name, click: show }, counted.textContent));
    } else {
      counted.classList.add("leads");
      counted.addEventListener("click", show);
    }
  }
}
// One reference at a time, and the curves of a chosen sample.
const singles = [...document.querySelectorAll("#single-references > details")];
if (singles.length > 1) {
  const show = (which) => singles.forEach((one, i) => (one.hidden = !(one.open = i == which)));
  const field = choose("Reference", singles.map((one, i) => [i, one.dataset.name]), show);
  const box = $("select", field);
  const step = (by) => show((box.value = (+box.value + by + singles.length) % singles.length));
  $("#pick-reference").append(field, ...["Previous", "Next"].map((text, i) => press(() => step(2 * i - 1), text)));
  show(0);
}
if ($("#curve-data")) {
  const known = JSON.parse($("#curve-data").textContent);
  const tiles = [...$("#curve-tiles").children];
  const draw = (which) => {
    document.querySelectorAll("#curves .picture").forEach((plane, p) => {
      let pen = "M";
      const path = known.y[p][which].map((y, e) => {
        const step = y === null ? "" : `${pen}${known.x[e]} ${y}`;
        pen = y === null ? "M" : "L";
        return step;
      });
      $(".style-1", plane).setAttribute("d", path.join(""));
      $("desc", plane).textContent = `Sample ${known.index[which]}.`;
    });
    tiles.forEach((tile, i) => (tile.hidden = i != which));
  };
  $("#pick-curve").append(choose("Sample", known.index.map((index, i) => [i, `#${index}`]), draw));
}
