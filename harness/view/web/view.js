// Shows what the server says of runs. Texts come from models and files: they become text nodes, never markup.
"use strict";

const { base, kind, names } = document.body.dataset;
const path = (name) => name.split("/").map(encodeURIComponent).join("/");
const STATES = {
  running: "running", finished: "finished", failed: "failed", interrupted: "stopped, the same command continues it",
  terminated: "terminated, the same command continues it", killed: "killed, the same command continues it",
  silent: "no sign of life lately", board: "finished",
};
const EVERY = 1000; // milliseconds between two looks at the clock
const RETRY = 1500; // before a closed connection is opened again

function make(tag, classes, ...children) {
  const node = document.createElement(tag);
  if (classes) node.className = classes;
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function number(value) {
  const size = Math.abs(value);
  const digits = size >= 999.95 ? 0 : size >= 9.9995 ? 1 : 3;
  const text = size.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return value < 0 && /[1-9]/.test(text) ? `−${text}` : text;
}

const signed = (value) => (value > 0 && /[1-9]/.test(number(value)) ? `+${number(value)}` : number(value));

function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 99.5) return `${seconds.toFixed(0)} s`;
  return seconds < 5970 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

const clock = (time) => {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString("en-GB");
};

// One stream of events, opened again for as long as this page is. The browser itself gives up after an error's answer.
function follow(address, handlers) {
  const lost = document.querySelector("[data-lost]");
  const open = () => {
    const source = new EventSource(address);
    source.onopen = () => { lost.hidden = true; };
    source.onerror = () => {
      lost.hidden = false;
      if (source.readyState === EventSource.CLOSED) setTimeout(open, RETRY);
    };
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    }
  };
  open();
}

// ---- the training curves

const WIDTH = 240, HEIGHT = 116, LEFT = 40, RIGHT = 232, TOP = 8, BOTTOM = 94;

function shape(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function ticks(low, high) {
  const rough = (high - low) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) found.push(tick);
  return found;
}

function draw(title, quantity, lines) {
  const all = lines.flat();
  const values = all.map(([, value]) => value);
  let low = Math.min(...values), high = Math.max(...values);
  if (high - low < 1e-9) { low -= Math.abs(low) * 0.1 || 0.5; high += Math.abs(high) * 0.1 || 0.5; }
  const last = Math.max(...all.map(([step]) => step)), first = Math.min(1, ...all.map(([step]) => step));
  const x = (step) => (last === first ? (LEFT + RIGHT) / 2 : LEFT + ((step - first) / (last - first)) * (RIGHT - LEFT));
  const y = (value) => BOTTOM - ((value - low) / (high - low)) * (BOTTOM - TOP);
  const label = `${quantity} of ${title} while training, now ${number(lines[0].at(-1)[1])}`;
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  for (const tick of ticks(low, high)) {
    svg.append(shape("line", { class: "rule", x1: LEFT, x2: RIGHT, y1: y(tick), y2: y(tick) }));
    svg.append(shape("text", { class: "tick", x: LEFT - 5, y: y(tick) + 4, "text-anchor": "end" }, Number(tick.toPrecision(6)).toLocaleString("en", { maximumSignificantDigits: 3 })));
  }
  lines.forEach((line, place) => {
    const points = line.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    svg.append(shape("polyline", { class: `curve seed${place % 4}`, points }));
    const [step, value] = line.at(-1);
    svg.append(shape("circle", { class: `end seed${place % 4}`, cx: x(step).toFixed(1), cy: y(value).toFixed(1), r: 2.5 }));
  });
  svg.append(shape("text", { class: "tick", x: RIGHT, y: 110, "text-anchor": "end" }, `step ${last.toLocaleString("en")}`));
  return svg;
}

// ---- one run

class Run {
  constructor(name) {
    this.root = document.querySelector("#run").content.firstElementChild.cloneNode(true);
    this.name = name;
    this.curves = new Map();
    this.shown = {};
    this.epoch = null;
    this.at("quantity").addEventListener("change", () => this.drawCurves());
    this.root.querySelector("[data-logs]").addEventListener("toggle", () => this.readLogs());
    follow(`${base}/events/${path(name)}`, {
      run: (run) => this.update(run),
      curve: ({ key, points }) => {
        this.curves.set(key, points);
        this.stale = true;
      },
    });
    setInterval(() => this.tick(), EVERY);
  }

  at(name) { return this.root.querySelector(`[data-${name}]`); }

  // Calls `show` where a part of what the server says has changed: a reader's place and focus stay elsewhere.
  part(name, value, show) {
    const text = JSON.stringify(value);
    if (this.shown[name] === text) return;
    this.shown[name] = text;
    show(value);
  }

  toggle(name, visible) { this.root.querySelector(`[data-part="${name}"]`).hidden = !visible; }

  update(run) {
    this.run = run;
    if (run.epoch !== this.epoch) {
      if (this.epoch !== null) this.curves.clear();
      this.epoch = run.epoch;
    }
    const { status } = run;
    const title = status ? status.name : run.folder === "-" ? document.querySelector("[data-title]").textContent : run.folder;
    this.at("name").textContent = title;
    // Landmarks of runs side by side have names of their own.
    this.at("table").setAttribute("aria-label", `Rows of ${title}`);
    this.at("failed").setAttribute("aria-label", `Failures of ${title}`);
    if (JSON.parse(names).length === 1) document.querySelector("[data-title]").textContent = title;
    const state = status ? status.state : run.board ? "board" : "";
    this.part("state", [state, run.problem], () => {
      const pill = this.at("state");
      pill.className = `state ${state in STATES ? state : ""}`;
      pill.textContent = STATES[state] || state || "no run has started here yet";
    });
    const note = run.problem || (status && status.note) || "";
    this.at("note").textContent = note;
    this.at("note").hidden = !note;
    this.part("failed", status ? status.failed : [], (failed) => this.showFailed(failed));
    this.part("now", [state, status ? status.running : []], ([, running]) => this.showRunning(running, state));
    this.part("rows", [run.rows, run.metrics, run.sentences, run.provisional, run.board, run.board_problem], () => this.showRows(run));
    this.part("samples", run.samples, (samples) => this.showSamples(samples));
    this.part("warnings", run.warnings, (warnings) => {
      this.toggle("warnings", warnings.length > 0);
      this.at("warnings-title").textContent = `${warnings.length} ${warnings.length === 1 ? "warning" : "warnings"} of the board`;
      this.at("warnings").replaceChildren(...warnings.map((text) => make("li", "", text)));
    });
    this.part("latest", run.latest, (latest) => this.showLatest(latest));
    this.part("messages", [run.messages, run.unreadable], () => this.showMessages(run));
    this.part("figures", run.figures, () => { this.stale = true; });
    this.tick();
  }

  tick() {
    if (this.stale) {
      this.stale = false;
      this.drawCurves();
    }
    if (this.run) this.showFacts(this.run);
  }

  showFacts({ status, seconds, rows }) {
    const facts = [];
    const share = status && status.work ? Math.min(1, status.work_done / status.work) : 0;
    this.at("progress").hidden = !status || status.stages === 0;
    this.at("progress").firstElementChild.value = status && status.state === "finished" ? 1 : share;
    if (status) {
      const running = status.state === "running";
      if (JSON.parse(names).length === 1) document.title = `${running ? `${Math.floor(share * 100)} % · ` : ""}${status.name} · harness view`;
      const until = running ? Date.now() : new Date(status.updated).getTime();
      facts.push(["Stages", `${status.done.toLocaleString("en")} of ${status.stages.toLocaleString("en")}`]);
      if (status.cached) facts.push(["In the store before", status.cached.toLocaleString("en")]);
      facts.push(["Time so far", duration(Math.max(0, (until - new Date(status.began).getTime()) / 1000))]);
      if (running && status.seconds_left !== null) facts.push(["Still to come, about", duration(status.seconds_left)]);
    }
    const compute = Object.values(seconds).reduce((sum, one) => sum + one, 0);
    if (compute) facts.push(["Compute", duration(compute)]);
    const dollars = rows.reduce((sum, row) => sum + (row.usd || 0) * Math.max(1, row.seeds), 0);
    if (dollars) facts.push(["Judges of finished rows", `$${dollars.toFixed(2)}`]);
    const complete = rows.filter((row) => row.state === "complete").length;
    if (rows.length) facts.push(["Rows complete", `${complete} of ${rows.length}`]);
    this.part("facts", facts, () => {
      this.at("facts").replaceChildren(...facts.map(([name, value]) => make("div", "", make("dt", "", name), make("dd", "", value))));
    });
  }

  showFailed(failed) {
    this.at("failed").hidden = failed.length === 0;
    const items = failed.map(({ title, reason }) => make("li", "", make("b", "", title), `: ${reason}`));
    this.at("failed").replaceChildren(make("h3", "", failed.length === 1 ? "One stage failed" : `${failed.length} stages failed`), make("ul", "", ...items));
  }

  showRunning(running, state) {
    this.toggle("now", running.length > 0 && state === "running");
    this.at("now").replaceChildren(...running.map((stage) => {
      const share = stage.total > 0 ? Math.min(1, stage.done / stage.total) : null;
      const bar = make("progress", "");
      bar.max = 1;
      bar.setAttribute("aria-label", stage.title);
      if (share !== null) bar.value = share;
      const words = [share === null ? "" : `${Math.floor(share * 100)} %`, stage.note, stage.attempt > 1 ? `attempt ${stage.attempt}` : ""];
      return make("li", "", make("span", "what", stage.title), make("span", "note", words.filter(Boolean).join(" · ")), bar);
    }));
  }

  showRows(run) {
    this.toggle("rows", run.rows.length > 0);
    const title = this.at("rows-title");
    title.replaceChildren("Rows");
    if (run.provisional && run.board) title.append(make("span", "tag provisional", "provisional"));
    const waiting = run.board_problem || "Intervals come with the first complete row.";
    this.at("sentence").textContent = run.board ? run.sentences[0] || "" : waiting;
    this.at("open").hidden = !run.board;
    this.at("link").textContent = run.provisional ? "Open the provisional board" : "Open the board";
    this.at("link").href = `${base}/board/${path(this.name)}/index.html`;
    const heads = run.metrics.map((metric) => {
      const way = metric.higher_is_better === null ? "" : metric.higher_is_better ? "higher is better" : "lower is better";
      const head = make("th", "num", metric.name, way ? make("span", "way", way) : null);
      head.title = metric.key;
      return head;
    });
    const head = make("tr", "", make("th", "", "Method"), ...heads, make("th", "num", "Time per seed"));
    for (const cell of head.children) cell.scope = "col";
    this.at("head").replaceChildren(head);
    this.at("rows").replaceChildren(...run.rows.map((row) => this.row(row, run)));
  }

  row(row, run) {
    const name = make("th", "", make("span", "method", row.label));
    name.scope = "row";
    if (row.baseline) name.append(" ", make("span", "tag base", "baseline"));
    if (row.kind && row.kind !== "measured") name.append(" ", make("span", `tag ${row.kind}`, row.kind));
    const seeds = row.planned > 1 && run.provisional ? `${row.seeds} of ${row.planned} seeds` : "";
    const stages = row.state === "running" && row.of ? `${row.done} of ${row.of} stages` : row.state === "waiting" ? "waits" : "";
    const state = row.state === "complete" && run.provisional && row.seeds === row.planned ? "complete" : "";
    const words = [state, seeds, stages].filter(Boolean).join(" · ");
    if (words) name.append(make("small", "", words));
    if (row.failed) name.append(make("small", "why", row.failed));
    const time = row.seconds === null ? make("td", "num none", "–") : make("td", "num", duration(row.seconds));
    if (row.usd) time.append(make("small", "", `$${row.usd.toFixed(2)}`));
    return make("tr", `${row.state}${row.baseline ? " baseline" : ""}`, name, ...row.cells.map((cell) => this.cell(cell)), time);
  }

  cell(cell) {
    if (cell === null) return make("td", "num none", "–");
    if (cell.scored !== null) {
      return make("td", "num", make("span", "sofar", number(cell.mean)), make("small", "", `so far, ${cell.scored.toLocaleString("en")} scores`));
    }
    const interval = cell.low === null ? null : make("small", "", `${number(cell.low)} – ${number(cell.high)}`);
    const delta = cell.delta === null ? null : make("span", `delta ${cell.verdict}`, signed(cell.delta), make("b", "", cell.mark), " ",
      make("small", "", `${signed(cell.delta_low)} … ${signed(cell.delta_high)}`));
    return make("td", "num", make("span", "mean", number(cell.mean)), interval, delta);
  }

  // Steps of later rounds are counted on from those before.
  line({ keys }, quantity) {
    const points = [];
    let before = 0;
    for (const key of keys) {
      const round = this.curves.get(key) || [];
      for (const point of round) if (quantity in point) points.push([before + point.step, point[quantity]]);
      if (round.length) before += round.at(-1).step;
    }
    return points;
  }

  drawCurves() {
    const figures = this.run ? this.run.figures : [];
    const known = new Set([...this.curves.values()].flatMap((points) => points.flatMap((point) => Object.keys(point))));
    known.delete("step");
    known.delete("round");
    const quantities = [...known].sort((a, b) => (b === "loss") - (a === "loss") || a.localeCompare(b));
    const select = this.at("quantity");
    const chosen = known.has(select.value) ? select.value : quantities[0];
    this.part("quantities", quantities, () => {
      select.replaceChildren(...quantities.map((name) => new Option(name)));
      select.value = chosen || "";
    });
    const drawn = figures.map(({ title, lines }) => {
      const shown = lines.map((line) => this.line(line, chosen)).filter((points) => points.length > 0);
      return shown.length ? make("figure", "", make("figcaption", "", title), draw(title, chosen, shown)) : null;
    }).filter(Boolean);
    this.toggle("curves", drawn.length > 0);
    this.at("curves").replaceChildren(...drawn);
  }

  showSamples(samples) {
    this.toggle("samples", samples.length > 0);
    this.at("samples").replaceChildren(...samples.slice(0, 6).map((sample) => {
      const texts = [make("p", "prompt", sample.prompt), make("p", "", sample.response || "(an empty answer)")];
      for (const text of texts) text.tabIndex = 0;
      return make("figure", "", make("figcaption", "", sample.title), ...texts);
    }));
  }

  showLatest(latest) {
    this.toggle("latest", latest.length > 0);
    this.at("latest").replaceChildren(...latest.map((stage) =>
      make("li", stage.error ? "grave" : "", make("span", "took", duration(stage.seconds)), make("time", "", clock(stage.time)),
        stage.error ? `${stage.title}: ${stage.error}` : stage.title)));
  }

  showMessages({ messages, unreadable }) {
    this.toggle("messages", messages.length > 0);
    const odd = unreadable ? [make("li", "grave", `${unreadable} lines of events.jsonl could not be read`)] : [];
    this.at("messages").replaceChildren(...odd, ...messages.map((message) =>
      make("li", message.grave ? "grave" : "", make("time", "", clock(message.time)), message.text)));
  }

  async readLogs() {
    if (!this.root.querySelector("[data-logs]").open) return;
    const place = this.at("tails");
    try {
      const tails = await (await fetch(`${base}/logs/${path(this.name)}`)).json();
      if (tails.length) {
        place.replaceChildren(...tails.flatMap(({ name, text }) => {
          const output = make("pre", "", text || "(empty)");
          output.tabIndex = 0;
          return [make("h4", "", name), output];
        }));
      }
    } catch {
      return; // the banner tells it
    }
    setTimeout(() => this.readLogs(), 5 * EVERY);
  }
}

// ---- all runs

class Index {
  constructor() {
    this.root = document.createElement("div");
    this.root.append(document.querySelector("#index").content.cloneNode(true));
    this.form = this.root.querySelector("[data-beside]");
    this.chosen = new Set();
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      location.href = `${base}/beside?${[...this.chosen].map((name) => `run=${encodeURIComponent(name)}`).join("&")}`;
    });
    follow(`${base}/events`, { index: (runs) => this.update(runs) });
  }

  update(runs) {
    const text = JSON.stringify(runs);
    if (text === this.shown) return;
    this.shown = text;
    this.form.hidden = runs.length < 2;
    this.root.querySelector("[data-empty]").hidden = runs.length > 0;
    const known = new Set(runs.map((run) => run.id));
    this.chosen = new Set([...this.chosen].filter((name) => known.has(name)));
    const focused = document.activeElement && document.activeElement.dataset.focus;
    this.root.querySelector("[data-cards]").replaceChildren(...runs.map((run) => this.card(run)));
    if (focused) this.root.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
    this.count();
  }

  count() {
    const { size } = this.chosen;
    this.form.querySelector("button").disabled = size < 2 || size > 4;
    this.form.querySelector("[data-chosen]").textContent = size ? `${size} chosen` : "Choose two to four runs.";
  }

  card(run) {
    const state = make("span", `state ${run.state in STATES ? run.state : ""}`, (STATES[run.state] || run.state).split(",")[0]);
    const link = make("a", "", run.name);
    link.href = `${base}/run/${path(run.id)}`;
    link.dataset.focus = `link ${run.id}`;
    const card = make("li", "", make("div", "head", make("h2", "", link), state));
    if (run.problem) card.append(make("p", "", run.problem));
    if (run.best !== null) {
      card.append(make("p", "best", "Best row ", make("b", "", run.best), run.score === null ? "" : `, ${run.metric} ${number(run.score)}`));
    }
    if (run.state === "running" && run.stages) {
      const bar = make("progress", "");
      bar.max = run.stages;
      bar.value = run.done;
      bar.setAttribute("aria-label", `Stages of ${run.name}`);
      card.append(bar, make("p", "", `${run.done} of ${run.stages} stages`));
    } else if (run.rows !== null) {
      card.append(make("p", "", `${run.rows} rows${run.failed ? `, ${run.failed} failed` : ""}`));
    }
    const choose = make("input", "");
    choose.type = "checkbox";
    choose.checked = this.chosen.has(run.id);
    choose.dataset.focus = `choose ${run.id}`;
    choose.addEventListener("change", () => {
      this.chosen[choose.checked ? "add" : "delete"](run.id);
      this.count();
    });
    const foot = make("div", "foot", make("label", "check", choose, " side by side"));
    if (run.rows !== null) {
      const board = make("a", "", "Board");
      board.href = `${base}/board/${path(run.id)}/index.html`;
      board.dataset.focus = `board ${run.id}`;
      board.setAttribute("aria-label", `Board of ${run.name}`);
      foot.append(board);
    }
    foot.append(make("span", "note", `${run.folder === "-" ? "" : run.folder} · ${String(run.date).slice(0, 16).replace("T", " ")}`));
    card.append(foot);
    return card;
  }
}

const parts = kind === "index" ? [new Index()] : JSON.parse(names).map((name) => new Run(name));
document.querySelector("[data-main]").replaceChildren(...parts.map((part) => part.root));
