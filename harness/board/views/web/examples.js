// Examples: blocks are unpacked when they are looked at. Texts are only ever set as text.
const head = document.getElementById("examples-data");
if (head) {
  const PAGE = 12, KEPT = 6, LONG = 4000, ADDRESS = "#examples?";
  const { labels, first, shown, starts, metrics, judges } = JSON.parse(head.textContent);
  const blocks = [...document.querySelectorAll(".examples-block")], scoreBlocks = [...document.querySelectorAll(".scores-block")];
  const viewer = document.querySelector(".viewer");
  const find = (selector) => viewer.querySelector(selector);
  const list = find("[data-list]"), search = find("[data-search]"), columns = find("[data-answers]"), added = find("[data-add]");
  const menus = metrics.length ? Object.fromEntries(["metric", "only", "sort", "other", "basis"].map((name) => [name, find(`[data-${name}]`)])) : {};
  const opened = new Map(), scored = new Map();
  let index = [];
  let rows = [...first], found = null, page = 0, chosen = 0, asked = 0, turned = 0, everyScore = false;

  // Unpacking: block → its examples, of which the last few are kept; metric → its scores.
  const bytesOf = async (packed) => {
    const text = atob(packed), bytes = new Uint8Array(text.length);
    for (let place = 0; place < text.length; place++) bytes[place] = text.charCodeAt(place);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
  };
  const unpack = async (content) => (typeof content === "string" ? JSON.parse(new TextDecoder().decode(await bytesOf(content))) : content);
  const open = (number) => {
    if (!opened.has(number)) {
      opened.set(number, unpack(JSON.parse(blocks[number].textContent)));
      if (opened.size > KEPT) opened.delete(opened.keys().next().value);
    }
    return opened.get(number);
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
  // Codes are [answer, row, example]: of the shown answers first, where those of all seeds differ. 0 stands for no score.
  const scoresOf = (number) => {
    if (!scored.has(number)) {
      scored.set(number, bytesOf(JSON.parse(scoreBlocks[number].textContent)).then((content) => {
        const { values, low, step, both } = metrics[number];
        const codes = values ? new Uint8Array(content) : new Uint16Array(content), half = both ? labels.length * shown : 0;
        const value = (code) => (code === 0 ? NaN : values ? values[code - 1] : low + step * (code - 1));
        return { own: (row, place) => value(codes[row * shown + place]), mean: (row, place) => value(codes[half + row * shown + place]) };
      }));
    }
    return scored.get(number);
  };

  const number = (value) => {
    const size = Math.abs(value), text = size >= 999.95 ? Math.round(size).toLocaleString("en") : size.toFixed(size >= 9.9995 ? 1 : 3);
    return value < 0 && /[1-9]/.test(text) ? `−${text}` : text;
  };
  const signed = (value) => (value > 0 && /[1-9]/.test(number(value)) ? `+${number(value)}` : number(value));

  const total = () => (found ? found.length : shown);
  const at = (position) => (found ? found[position] : position);
  const metric = () => (metrics.length ? Number(menus.metric.value) : -1);
  const wanted = () => (metrics.length ? { only: menus.only.value, sort: menus.sort.value } : { only: "", sort: "" });

  // What prompts are sorted by: the second row minus the first, or the only row's score.
  const gap = (scores) => {
    const read = menus.basis.value ? scores.own : scores.mean, [one, two] = rows;
    return two === undefined ? (place) => read(one, place) : (place) => read(two, place) - read(one, place);
  };
  // In standard deviations, so that judges on different scales can be compared; turned so that higher is better.
  const standardised = (scores, way) => {
    const of = gap(scores), values = Array.from({ length: shown }, (_, place) => of(place) * (way || 1));
    const known = values.filter(Number.isFinite), sum = (items) => items.reduce((before, item) => before + item, 0);
    const middle = sum(known) / known.length || 0, spread = Math.sqrt(sum(known.map((value) => (value - middle) ** 2)) / known.length) || 1;
    const centre = rows.length > 1 ? 0 : middle;
    return values.map((value) => (value - centre) / spread);
  };

  async function arranged(places) {
    const { only, sort } = wanted();
    if (!only && !sort) return places;
    const number = metric(), way = metrics[number].way || 1, scores = await scoresOf(number), of = gap(scores);
    const read = menus.basis.value ? scores.own : scores.mean;
    let one = [], two = [];
    if (only === "disagree" || sort === "disagree") {
      const other = Number(menus.other.value);
      one = standardised(scores, metrics[number].way);
      two = standardised(await scoresOf(other), metrics[other].way);
    }
    const keeps = {
      worse: (place) => of(place) * way < 0,
      better: (place) => of(place) * way > 0,
      equal: (place) => of(place) === 0,
      disagree: (place) => one[place] * two[place] < 0,
    };
    const keys = {
      worse: (place) => of(place) * way,
      better: (place) => -of(place) * way,
      low: (place) => read(rows[0], place),
      high: (place) => -read(rows[0], place),
      disagree: (place) => -Math.abs(one[place] - two[place]) * (one[place] * two[place] < 0 ? 1 : 1e-6),
    };
    const all = places || Array.from({ length: shown }, (_, place) => place);
    const kept = only ? all.filter(keeps[only]) : [...all];
    if (!sort) return kept;
    const keyed = kept.map((place) => [place, keys[sort](place)]);
    // Prompts without a score are last; equal ones keep their order.
    return keyed.sort(([a, x], [b, y]) => Number.isNaN(x) - Number.isNaN(y) || x - y || a - b).map(([place]) => place);
  }

  async function putList() {
    const mine = ++turned, from = page * PAGE;
    const places = Array.from({ length: Math.max(0, Math.min(PAGE, total() - from)) }, (_, position) => at(from + position));
    const of = metrics.length ? gap(await scoresOf(metric())) : () => NaN;
    if (mine === turned) drawList(places, of);
  }

  function drawList(places, of) {
    list.replaceChildren(...places.map((place) => {
      const [id, prompt] = index[place], value = of(place);
      const item = document.createElement("li"), button = document.createElement("button"), small = document.createElement("small");
      button.type = "button";
      button.dataset.place = String(place);
      small.textContent = id;
      button.append(small, prompt);
      if (!Number.isNaN(value)) {
        const score = document.createElement("span");
        score.className = "gap";
        score.title = rows.length > 1 ? `${labels[rows[1]]} minus ${labels[rows[0]]}` : labels[rows[0]];
        score.textContent = rows.length > 1 ? signed(value) : number(value);
        button.prepend(score);
      }
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

  function put(place, text, absent) {
    const none = text === null || text === undefined;
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

  function putJudged(place, items) {
    place.replaceChildren(...(items || []).map(([evaluator, verdict, words]) => {
      const details = document.createElement("details"), summary = document.createElement("summary"), text = document.createElement("div");
      summary.textContent = verdict ? `${evaluator}: ${verdict}` : evaluator;
      text.className = "text";
      text.textContent = words || "No words were kept.";
      details.open = true;
      details.append(summary, text);
      return details;
    }));
  }

  // An answer's scores: the primary metrics and the chosen one, and all others when asked for.
  function putScores(place, column, row, prompt, lines) {
    if (!lines.some(([, scores]) => !Number.isNaN(scores.mean(row, prompt)))) return place.replaceChildren();
    const table = document.createElement("table"), caption = table.createCaption(), heads = table.createTHead().insertRow();
    caption.className = "hidden";
    caption.textContent = `Scores of ${labels[row]} on this prompt`;
    const both = lines.some(([number]) => metrics[number].both), against = column > 0;
    for (const name of ["Metric", ...(both ? ["This answer", "All seeds"] : ["Score"]), ...(against ? [`Δ ${labels[rows[0]]}`] : [])]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      heads.append(cell);
    }
    const body = table.createTBody();
    for (const [number_, scores] of lines) {
      const own = scores.own(row, prompt), mean = scores.mean(row, prompt), line = body.insertRow();
      if (Number.isNaN(mean)) { line.remove(); continue; }
      const name = document.createElement("th");
      name.scope = "row";
      name.textContent = metrics[number_].name;
      name.title = metrics[number_].key;
      line.append(name);
      const shownValues = [...(both ? [Number.isNaN(own) ? "–" : number(own)] : []), number(mean)];
      if (against) {
        const difference = mean - scores.mean(rows[0], prompt);
        shownValues.push(Number.isNaN(difference) ? "–" : signed(difference));
      }
      for (const value of shownValues) line.insertCell().textContent = value;
    }
    const parts = [table];
    if (lines.length < metrics.length || everyScore) {
      const more = document.createElement("button");
      more.type = "button";
      more.dataset.every = "";
      more.textContent = everyScore ? "Fewer scores" : `All ${metrics.length} scores`;
      parts.push(more);
    }
    place.replaceChildren(...parts);
  }

  const listedMetrics = () => metrics.map((_, number) => number).filter((number) => everyScore || metrics[number].primary || number === metric());

  async function showTexts() {
    if (!total() && !found) return;
    const mine = chosen, content = await example(mine);
    const lines = await Promise.all(listedMetrics().map(async (number) => [number, await scoresOf(number)]));
    if (mine === chosen) putTexts(content, lines);
  }

  function putTexts([id, prompt, target, answers, verdicts], lines) {
    find("[data-id]").textContent = id;
    put(find('[data-show="prompt"]'), prompt, "");
    put(find('[data-show="target"]'), target, "This source has no target.");
    [...columns.children].forEach((article, column) => {
      const row = rows[column];
      put(article.querySelector(".text"), answers[row], "No answer of this row was kept.");
      putScores(article.querySelector("[data-scores]"), column, row, chosen, lines);
      putJudged(article.querySelector("[data-judged]"), verdicts && verdicts[row]);
    });
    for (const button of list.querySelectorAll("button")) {
      if (button.dataset.place === String(chosen)) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
    find("[data-link]").href = address();
  }

  // The columns of answers: one for each chosen row.
  function putColumns() {
    const template = find("template").content.firstElementChild;
    columns.replaceChildren(...rows.map((row, column) => {
      const article = template.cloneNode(true), select = article.querySelector("select"), remove = article.querySelector("[data-remove]");
      article.querySelector("label .hidden").textContent = column ? `Row ${column + 1}` : "First row";
      article.querySelector(".text").dataset.show = `answer-${column}`;
      labels.forEach((label, number) => select.add(new Option(label, String(number))));
      select.value = String(row);
      select.addEventListener("change", () => {
        rows[column] = Number(select.value);
        changedRows();
      });
      remove.hidden = rows.length < 2;
      remove.addEventListener("click", () => {
        rows.splice(column, 1);
        putColumns();
        added.focus();
        changedRows();
      });
      return article;
    }));
    added.replaceChildren(new Option("…", ""), ...labels.map((label, number) => new Option(label, String(number))), new Option("all rows", "all"));
    putMenus();
  }

  function putMenus() {
    if (!metrics.length) return;
    const [one, two] = rows.map((row) => labels[row]), way = metrics[metric()].way;
    const fill = (select, options) => {
      const before = select.value;
      select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
      select.value = options.some(([value]) => value === before) ? before : "";
    };
    const worse = way ? "worse" : "lower", better = way ? "better" : "higher", pair = two !== undefined, disagree = judges.length > 0;
    fill(menus.only, [
      ["", "all prompts"],
      ...(pair ? [["worse", `${two} is ${worse} than ${one}`], ["better", `${two} is ${better} than ${one}`], ["equal", "both are equal"]] : []),
      ...(disagree ? [["disagree", "two judges disagree"]] : []),
    ]);
    fill(menus.sort, [
      ["", "the board's order"],
      ...(pair ? [["worse", `${worse} in ${two} first`], ["better", `${better} in ${two} first`]] : []),
      ["low", `lowest score of ${one} first`],
      ["high", `highest score of ${one} first`],
      ...(disagree ? [["disagree", "disagreement of two judges"]] : []),
    ]);
    menus.other.parentElement.hidden = menus.only.value !== "disagree" && menus.sort.value !== "disagree";
    menus.basis.parentElement.hidden = !metrics[metric()].both;
  }

  // A search looks at everything a block holds, block after block; a later one ends it.
  async function hits(words, mine) {
    const places = [];
    for (let block = 0; block < blocks.length; block++) {
      (await open(block)).forEach(([id, prompt, target, answers, verdicts], position) => {
        const text = [id, prompt, target, ...answers, ...Object.values(verdicts || {}).flat(2)].join("\n").toLowerCase();
        if (words.every((word) => text.includes(word))) places.push(starts[block] + position);
      });
      if (mine !== asked) return places;
      if (block % 8 === 7) {
        find("[data-found]").textContent = `${places.length.toLocaleString("en")} found, still looking …`;
        await new Promise((resolve) => setTimeout(resolve));
        if (mine !== asked) return places;
      }
    }
    return places;
  }

  async function look(kept = -1) {
    const mine = ++asked, words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matching = words.length ? await hits(words, mine) : null;
    if (mine !== asked) return;
    const next = await arranged(matching);
    const position = kept >= 0 ? (next ? next.indexOf(kept) : kept) : 0;
    const place = position < 0 ? kept : next ? next[position] : position;
    const content = place === undefined ? null : await example(place);
    const lines = await Promise.all(listedMetrics().map(async (number) => [number, await scoresOf(number)]));
    const of = metrics.length ? gap(await scoresOf(metric())) : () => NaN;
    if (mine !== asked) return;
    // From here on nothing is awaited: the count, the list and the texts change at once, and none beside another's former state.
    turned++;
    found = next;
    find("[data-found]").textContent = found ? `${found.length.toLocaleString("en")} of ${shown.toLocaleString("en")} prompts` : "";
    page = Math.max(0, Math.floor(position / PAGE));
    if (place !== undefined) chosen = place;
    drawList(Array.from({ length: Math.max(0, Math.min(PAGE, total() - page * PAGE)) }, (_, line) => at(page * PAGE + line)), of);
    if (content) putTexts(content, lines);
  }

  // A view's address names the example, the rows, and what the prompts are sorted by.
  function address() {
    const view = new URLSearchParams({ id: index[chosen][0] });
    for (const row of rows) view.append("row", labels[row]);
    if (search.value) view.set("find", search.value);
    if (metrics.length) {
      view.set("metric", metrics[metric()].key);
      for (const name of ["only", "sort", "basis"]) if (menus[name].value) view.set(name, menus[name].value);
      if (!menus.other.parentElement.hidden) view.set("other", metrics[Number(menus.other.value)].key);
    }
    return ADDRESS + view;
  }
  async function restore() {
    if (!location.hash.startsWith(ADDRESS)) return false;
    const view = new URLSearchParams(location.hash.slice(ADDRESS.length));
    const named = view.getAll("row").map((label) => labels.indexOf(label)).filter((row) => row >= 0);
    if (named.length) rows = named;
    search.value = view.get("find") || "";
    if (metrics.length) {
      const placed = (name) => metrics.findIndex(({ key }) => key === view.get(name));
      if (placed("metric") >= 0) menus.metric.value = String(placed("metric"));
      putColumns();
      if (placed("other") >= 0) menus.other.value = String(placed("other"));
      for (const name of ["only", "sort", "basis"]) {
        const value = view.get(name) || "";
        if ([...menus[name].options].some((option) => option.value === value)) menus[name].value = value;
      }
      putMenus();
    } else putColumns();
    await look(index.findIndex(([id]) => id === view.get("id")));
    document.getElementById("examples").scrollIntoView();
    return true;
  }
  // Whoever changes a view may reload the page and come back to it. Some viewers of files refuse addresses.
  const remember = () => { try { history.replaceState(null, "", address()); } catch { /* the link above the prompt still works */ } };

  function changedRows() {
    putMenus();
    const { only, sort } = wanted();
    (only || sort ? look() : Promise.all([putList(), showTexts()])).then(remember);
  }

  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => look().then(remember), 150);
  });
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    chosen = Number(button.dataset.place);
    showTexts().then(remember);
  });
  for (const button of viewer.querySelectorAll("[data-page]")) {
    button.addEventListener("click", () => {
      page += Number(button.dataset.page);
      putList();
    });
  }
  added.addEventListener("change", () => {
    if (added.value === "all") rows = [...new Set([...rows, ...labels.keys()])];
    else if (added.value) rows.push(Number(added.value));
    putColumns();
    changedRows();
  });
  columns.addEventListener("click", (event) => {
    if (!event.target.closest("[data-every]")) return;
    everyScore = !everyScore;
    const article = [...columns.children].indexOf(event.target.closest("article"));
    showTexts().then(() => columns.children[article].querySelector("[data-every]")?.focus());
  });
  if (metrics.length) {
    for (const name of ["metric", "other"]) metrics.forEach(({ key }, number) => menus[name].add(new Option(key, String(number))));
    if (judges.length) menus.other.value = String(judges[1]);
    for (const [name, menu] of Object.entries(menus)) {
      menu.addEventListener("change", () => {
        // Two judges that are one agree: the second one is chosen anew with the first.
        if (name !== "other" && menus.other.value === menus.metric.value && judges.length) menus.other.value = String(judges.find((judge) => judge !== metric()));
        putMenus();
        look().then(remember);
      });
    }
  }
  addEventListener("hashchange", restore);
  putColumns();
  const start = async () => {
    index = await unpack(JSON.parse(document.getElementById("examples-index").textContent));
    viewer.hidden = false;
    if (!(await restore())) await Promise.all([putList(), showTexts()]);
  };
  // Nothing is unpacked before the page is there.
  if (document.readyState === "complete") start();
  else addEventListener("load", () => setTimeout(start));
}
