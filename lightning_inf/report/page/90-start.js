// The document is whole without this; with it, it can be searched, sorted and reviewed.
async function start() {
  const block = $("#data");
  if (!block) return;
  try {
    data = await unpack(block.textContent);
  } catch (error) {
    $("#tools").append(make("p", { class: "alarm", role: "alert" },
      `The data of this page can't be read (${error.message || error}). It was changed or cut off, or this browser is too old. What is printed here is whole; make the page again with: lightning-inf report <run directory>`));
    html.dataset.ready = "broken";
    return;
  }
  open_decisions();
  build_tools();
  link_pairs();
  build_review();
  build_exchange();
  refresh();
  performance.mark("ready");
  html.dataset.ready = "yes";
}
start();
