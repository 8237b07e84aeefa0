// Examples: blocks are unpacked when they are looked at. Texts are only ever set as text.
const head = document.getElementById("examples-data");
if (head) {
  const PAGE = 12, KEPT = 6, LONG = 4000;
  const { labels, first, shown, starts } = JSON.parse(head.textContent);
  const blocks = [...document.querySelectorAll(".examples-block")];
  const viewer = document.querySelector(".viewer");
  const find = (selector) => viewer.querySelector(selector);
  const list = find("[data-list]"), search = find("[data-search]");
  const methods = { left: find('[data-choose="left"]'), right: find('[data-choose="right"]') };
  const opened = new Map();
  let found = null, page = 0, chosen = 0, asked = 0, turned = 0;

  // Block → its examples; the last few are kept.
  const open = async (number) => {
    if (!opened.has(number)) {
      const content = JSON.parse(blocks[number].textContent);
      opened.set(number, typeof content === "string" ? unpack(content) : Promise.resolve(content));
      if (opened.size > KEPT) opened.delete(opened.keys().next().value);
    }
    return opened.get(number);
  };
  const unpack = async (packed) => {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };
  const blockOf = (place) => {
    let low = 0, high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle] <= place) low = middle;
      else high = middle - 1;
    }
    return low;
  };
  const example = async (place) => {
    const block = blockOf(place);
    return (await open(block))[place - starts[block]];
  };

  const total = () => (found ? found.length : shown);
  const at = (position) => (found ? found[position] : position);

  async function unpacked(places) {
    const items = [];
    for (const place of places) items.push([place, await example(place)]);
    return items;
  }

  async function showList() {
    const mine = ++turned, from = page * PAGE;
    const places = Array.from({ length: Math.min(PAGE, total() - from) }, (_, index) => at(from + index));
    const items = await unpacked(places);
    if (mine === turned) putList(items);
  }

  function putList(items) {
    list.replaceChildren(...items.map(([place, [id, prompt]]) => {
      const item = document.createElement("li"), button = document.createElement("button"), small = document.createElement("small");
      button.type = "button";
      button.dataset.place = String(place);
      small.textContent = id;
      button.append(small, prompt.slice(0, 140));
      if (place === chosen) button.setAttribute("aria-current", "true");
      item.append(button);
      return item;
    }));
    const pages = Math.max(1, Math.ceil(total() / PAGE));
    find("[data-at]").textContent = `${(page + 1).toLocaleString("en")} / ${pages.toLocaleString("en")}`;
    const turning = [...viewer.querySelectorAll("[data-page]")], held = turning.indexOf(document.activeElement);
    for (const button of turning) {
      const next = page + Number(button.dataset.page);
      button.disabled = next < 0 || next >= pages;
    }
    if (held >= 0 && turning[held].disabled) turning.find((button) => !button.disabled)?.focus();
  }

  function put(name, text, absent) {
    const place = find(`[data-show="${name}"]`), none = text === null || text === undefined;
    place.textContent = none ? absent : text.slice(0, LONG);
    place.classList.toggle("none", none);
    if (!none && text.length > LONG) {
      const more = document.createElement("button");
      more.type = "button";
      more.textContent = `Show all ${text.length.toLocaleString("en")} characters`;
      more.addEventListener("click", () => { place.textContent = text; });
      place.append("… ", more);
    }
  }

  function judged(name, items) {
    find(`[data-judged="${name}"]`).replaceChildren(...(items || []).map(([evaluator, verdict, words]) => {
      const details = document.createElement("details"), summary = document.createElement("summary"), text = document.createElement("div");
      summary.textContent = verdict ? `${evaluator}: ${verdict}` : evaluator;
      text.className = "text";
      text.textContent = words || "No words were kept.";
      details.open = true;
      details.append(summary, text);
      return details;
    }));
  }

  async function showTexts() {
    if (!total()) return;
    const mine = chosen, content = await example(mine);
    if (mine === chosen) putTexts(content);
  }

  function putTexts([id, prompt, target, answers, verdicts]) {
    find("[data-id]").textContent = id;
    put("prompt", prompt, "");
    put("target", target, "This source has no target.");
    for (const [name, select] of Object.entries(methods)) {
      put(name, answers[Number(select.value)], "No answer of this method was kept.");
      judged(name, verdicts && verdicts[select.value]);
    }
    for (const button of list.querySelectorAll("button")) {
      if (button.dataset.place === String(chosen)) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  // A search looks at everything a block holds, block after block; a later one ends it.
  async function look() {
    const mine = ++asked, words = search.value.toLowerCase().split(/\s+/).filter(Boolean), count = find("[data-found]");
    const hits = [];
    for (let block = 0; words.length && block < blocks.length; block++) {
      (await open(block)).forEach(([id, prompt, target, answers, verdicts], index) => {
        const text = [id, prompt, target, ...answers, ...Object.values(verdicts || {}).flat(2)].join("\n").toLowerCase();
        if (words.every((word) => text.includes(word))) hits.push(starts[block] + index);
      });
      if (mine !== asked) return;
      if (block % 8 === 7) {
        count.textContent = `${hits.length.toLocaleString("en")} found, still looking …`;
        await new Promise((resolve) => setTimeout(resolve));
        if (mine !== asked) return;
      }
    }
    const next = words.length ? hits : Array.from({ length: Math.min(PAGE, shown) }, (_, index) => index);
    const items = await unpacked(next.slice(0, PAGE));
    if (mine !== asked) return;
    // From here on nothing is awaited: the count, the list and the texts change at once, and none beside another's former state.
    turned++;
    found = words.length ? hits : null;
    count.textContent = found ? `${hits.length.toLocaleString("en")} of ${shown.toLocaleString("en")} prompts` : "";
    page = 0;
    if (items.length) chosen = items[0][0];
    putList(items);
    if (items.length) putTexts(items[0][1]);
  }

  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(look, 150);
  });
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    chosen = Number(button.dataset.place);
    showTexts();
  });
  for (const button of viewer.querySelectorAll("[data-page]")) {
    button.addEventListener("click", () => {
      page += Number(button.dataset.page);
      showList();
    });
  }
  const fill = (select, value) => {
    labels.forEach((label, index) => select.add(new Option(label, String(index))));
    select.value = String(value);
    select.addEventListener("change", showTexts);
  };
  fill(methods.left, first[0]);
  fill(methods.right, first[first.length - 1]);
  viewer.hidden = false;
  showList().then(showTexts);
}
