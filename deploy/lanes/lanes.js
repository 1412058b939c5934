// The page of lanes. A lane is a process, a thread, or a slot for greenlets, which live for one message each.
// A bar is a message that its lane runs or ran. What arrives, and its bounds: deploy/lanes_page.py.
"use strict";
(() => {
  const SPAN = 20, MOST = 300, AXIS = 16, EDGE = 12; // seconds shown; bars of a lane; pixels
  const POOLS = { prefork: ["pid", "process", "es"], threads: ["thread", "thread", "s"], gevent: ["greenlet", "greenlet", "s"] };
  const STATES = {
    running: "running", done: "done", failed: "failed", lost: "lost; its job goes back", returned: "to be tried again",
    cancelled: "cancelled", unknown: "over; no event said how",
  };
  const element = (id) => document.getElementById(id);
  const compose = element("main").dataset.compose;
  const groups = new Map(), open = new Map(), article = { stamp: "", rows: new Map() };
  let offset = Infinity, heard = 0, counted = 0, workers = {}, source;

  const make = (name, ...inside) => {
    const made = document.createElement(name);
    made.append(...inside);
    return made;
  };
  const say = (where, text) => { if (where.textContent !== text) where.textContent = text; };
  const row = (head, ...cells) => make("tr", make("th", head), ...cells.map((each) => make("td", each)));
  const now = () => Date.now() / 1000 - offset; // by the server's clock
  const took = (bar) => Math.max(0, (bar.end ?? now()) - bar.start);
  const run = ({ id }) => /\.(\d+)-(\d+)$/.exec(id); // the jobs that a message names
  const jobs = (bar) => bar.jobs ?? (run(bar) ? run(bar)[2] - run(bar)[1] + 1 : 1);
  const title = (bar) => (jobs(bar) > 1 ? `${jobs(bar)} jobs: ` : "") + (bar.label ?? bar.id).split(" from ")[0];
  const executor = (bar) => bar.greenlet ?? bar.thread;
  const poolOf = (bar) => (bar.greenlet !== null ? "gevent" : bar.thread !== bar.pid ? "threads" : "prefork");

  const command = (text) => Object.assign(make("code", text), { tabIndex: 0, role: "button", title: "copy" });
  const copy = (event) => {
    const code = event.target.closest("code");
    if (!code || !["Enter", " ", undefined].includes(event.key)) return;
    event.preventDefault();
    getSelection().selectAllChildren(code); // without https only localhost has navigator.clipboard
    say(element("copied"), `${document.execCommand("copy") ? "copied" : "copy with Ctrl-C"}: ${code.textContent}`);
    clearTimeout(copy.over);
    copy.over = setTimeout(() => say(element("copied"), ""), 4000);
  };
  for (const how of ["click", "keydown"]) document.addEventListener(how, copy);

  // With `make up ARGS=--faults` its supervisor sends signals for who has the token of its address: stack/faults.py.
  const faults = { url: element("main").dataset.faults, token: "", allowed: false, frozen: {} };
  const hit = async (path, method = "POST") => {
    try {
      const answer = await fetch(faults.url + path, { method, headers: { Authorization: "Bearer " + faults.token } });
      const said = await answer.json();
      Object.assign(faults, { allowed: answer.status !== 401, frozen: said.frozen ?? faults.frozen });
      if (said.error || method === "POST") faults.said = said.error;
    } catch {
      faults.said = "no answer from `make up`";
    }
    const frozen = Object.entries(faults.frozen), shown = JSON.stringify([faults.said, frozen]);
    if (element("faults").dataset.shown === shown) return;
    element("faults").dataset.shown = shown;
    element("faults").replaceChildren(faults.said ?? "",
      ...frozen.flatMap(([pid, name]) => [` Frozen: pid ${pid} of ${name} `, button("wake", pid)]));
  };
  const button = (what, pid) => {
    const made = Object.assign(make("button", what), { type: "button", className: what, ariaLabel: `${what} pid ${pid}` });
    made.addEventListener("click", () => hit(`/${what}/${pid}`));
    return made;
  };
  const ended = (pid) => (faults.frozen[pid] ? "frozen" : "killed or stopped");
  if (faults.url) {
    faults.token = location.hash.split("#faults=")[1] ?? sessionStorage.getItem("faults") ?? "";
    sessionStorage.setItem("faults", faults.token);
    history.replaceState(null, "", location.pathname); // no picture of the page has it
    hit("/", "GET");
  }

  // A state is told by colour and by shape.
  const shape = (c, paint, state, x, y, wide, high) => {
    const mid = y + high / 2, tip = Math.min(high / 2, wide);
    c.fillStyle = c.strokeStyle = paint[state] ?? paint.pool;
    c.beginPath();
    if (state === "running") {
      for (const [dx, dy] of [[0, 0], [wide - tip, 0], [wide, high / 2], [wide - tip, high], [0, high]]) c.lineTo(x + dx, y + dy);
      c.fill();
    } else if (state === "done") {
      c.globalAlpha = 0.4;
      c.fillRect(x, y, wide, high);
      c.globalAlpha = 1;
      c.fillRect(x, y + high - 2, wide, 2);
    } else if (state === "failed") {
      c.fillRect(x, mid - 1, wide, 2);
      for (const way of [-1, 1]) { c.moveTo(x + wide - high, mid - way * high / 2); c.lineTo(x + wide, mid + way * high / 2); }
      c.stroke();
    } else if (state === "lost" || state === "returned") {
      c.setLineDash(state === "lost" ? [3, 2] : []);
      c.strokeRect(x + 0.75, y + 0.75, Math.max(wide - 1.5, 0.5), high - 1.5);
      c.setLineDash([]);
    } else c.fillRect(x, mid - high / 6, wide, high / 3);
  };

  const prepare = (canvas, wide, high) => {
    const ratio = window.devicePixelRatio || 1, c = canvas.getContext("2d");
    canvas.width = Math.round(wide * ratio); // clears it
    canvas.height = Math.round(high * ratio);
    canvas.style.height = high + "px";
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.font = "11px system-ui, sans-serif";
    return c;
  };

  class Group { // the executors of a worker
    constructor(family, name, pool) {
      Object.assign(this, { family, name, pool, lanes: [], alive: new Set() });
      this.box = document.querySelector("template").content.cloneNode(true).firstElementChild;
      for (const part of ["span", "em", "ul", "canvas", "output", "tbody"]) this[part] = this.box.querySelector(part);
      this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX, event.offsetY));
      this.canvas.addEventListener("keydown", (event) => this.key(event));
      element(pool).append(this.box);
    }

    // Of prefork no lane is the worker: its pid comes with its first heartbeat.
    get main() { return workers[this.family]?.[1] ?? (this.pool === "prefork" ? undefined : [...this.alive][0]); }
    // Its name belongs to a newer worker: it has ended, and its lease has not passed yet.
    get replaced() {
      const same = Object.entries(workers).filter(([, [name]]) => name === this.name).map(([family]) => family);
      return same.includes(this.family) && same.at(-1) !== this.family;
    }

    get slots() { return workers[this.family]?.[2] ?? this.lanes.length; }

    lane(pid, number, start) {
      const fits = this.pool === "gevent" ? ({ bars }) => !bars.length || bars.at(-1).end <= start : (lane) => lane.number === number;
      let lane = this.lanes.find((each) => each.pid === pid && fits(each));
      if (!lane) {
        this.lanes.push(lane = { pid, number, bars: [] });
        if (this.pool !== "gevent") this.lanes.sort((a, b) => a.number - b.number);
      }
      lane.number = number;
      return lane;
    }

    take(bar) {
      const { bars } = this.lane(bar.pid, executor(bar), bar.start);
      if (bars.push(bar) > MOST) bars.shift();
    }

    live(pids) {
      this.alive = new Set(pids);
      this.lived ||= pids.length > 0;
      if (this.pool === "prefork") for (const pid of pids) this.lane(pid, pid);
    }

    refresh(moment) {
      const { main, slots, name, replaced } = this, gone = Boolean(this.lived && !this.alive.size);
      this.lanes = this.lanes.filter((lane) => {
        while (lane.bars.length && lane.bars[0].end < moment - SPAN) lane.bars.shift();
        const here = this.alive.has(lane.pid);
        lane.lived ||= here;
        lane.dead = replaced || (lane.lived && !here) ? lane.dead ?? moment : undefined;
        const last = lane.bars.at(-1);
        if (lane.dead && last?.state === "running") Object.assign(last, { state: "lost", end: lane.dead }); // until more is heard
        return here || lane.bars.length || lane.dead > moment - SPAN;
      });
      const [, one, more] = POOLS[this.pool], over = this.over = gone || replaced;
      const of = { prefork: main ? `of worker ${main}` : "of one worker", threads: `of process ${main}`, gevent: `of one thread of process ${main}` };
      const words = `${name}: ${slots} ${one}${slots === 1 ? "" : more} ${of[this.pool]}`;
      say(this.span, words);
      say(this.em, over ? `, ${ended(main)}` : "");
      this.box.classList.toggle("gone", over);
      this.canvas.setAttribute("aria-label", `${words}; the table below says the same as these lanes`);
      const targets = over ? [] : this.targets(), shown = JSON.stringify([targets, faults.allowed]);
      if (this.ul.dataset.shown !== shown) this.ul.replaceChildren(...targets.map(([who, pid, commands]) => make("li", who,
        ...(faults.allowed ? ["kill", "freeze", "wake"].map((what) => button(what, pid)) : commands.map(command)))));
      this.ul.dataset.shown = shown;
      if (this.lanes.length || this.alive.size) return;
      this.box.remove();
      groups.delete(this.family);
    }

    targets() { // what can be hit: words, pid, commands
      const service = `worker-${this.pool}`, children = this.pool === "prefork" ? [...this.alive].sort((a, b) => a - b) : [];
      const signals = ["9", "STOP", "CONT"];
      const inside = (command) => (compose ? `docker compose exec ${service} sh -c '${command}'` : command);
      const all = compose ? ["kill", "start", "pause", "unpause"].map((verb) => `docker compose ${verb} ${service}`)
        : signals.map((signal) => `kill -${signal} ${this.main}`);
      const child = (pid) => [`pid ${pid}`, pid, signals.map((signal) => inside(`kill -${signal} ${pid}`))];
      return [...(this.main ? [["worker", this.main, all]] : []), ...children.map(child)];
    }

    layout() {
      const wide = this.canvas.clientWidth, few = wide < 560 && this.slots > 16; // on a phone those that were used lately
      const lanes = few ? this.lanes.filter(({ bars }) => bars.length) : this.lanes, free = few && !this.over ? this.slots - lanes.length : 0;
      const rows = few ? lanes.length : Math.max(this.slots, lanes.length, 1);
      const columns = rows > 16 ? Math.max(2, Math.min(4, Math.floor(wide / 280))) : 1, per = Math.ceil(rows / columns);
      const high = columns === 1 ? 20 : Math.max(3, Math.min(13, Math.floor(800 / per)));
      const left = columns === 1 ? 92 : 26, column = wide / columns;
      return { wide, lanes, free, rows, per, high, left, column, scale: (column - left - EDGE) / SPAN };
    }

    draw(paint, moment) {
      const m = this.m = this.layout(), low = AXIS + m.per * m.high, c = prepare(this.canvas, m.wide, low + (m.free ? 18 : 2));
      c.fillStyle = paint.ink;
      if (m.free) c.fillText(`${m.free} ${m.lanes.length ? "more " : ""}are free`, m.left, low + 13);
      for (let n = 0; n < m.rows; n++) {
        const left = Math.floor(n / m.per) * m.column + m.left, end = left + SPAN * m.scale, y = AXIS + (n % m.per) * m.high;
        if (n % m.per === 0) this.axis(c, paint, end);
        c.fillStyle = paint.rule;
        c.fillRect(left, y + m.high / 2, end - left, 1);
        const lane = m.lanes[n];
        if (!lane) continue;
        if (m.high > 8) {
          c.font = "11px system-ui, sans-serif";
          c.fillStyle = lane.dead ? paint.failed : paint.ink;
          c.textAlign = "right";
          const kind = m.left > 50 ? POOLS[this.pool][0] + " " : "";
          c.fillText((lane.dead ? "✕ " : "") + kind + lane.number, left - 5, y + m.high / 2 + 4, m.left - 5);
        }
        c.save();
        c.beginPath();
        c.rect(left, y, end - left, m.high);
        c.clip();
        this.bars(c, paint, lane, (at) => Math.max(end - (moment - (at ?? moment)) * m.scale, left - 1), y);
        c.restore();
      }
    }

    bars(c, paint, lane, x, y) {
      const { high } = this.m;
      let drawn = -1; // what is short and done adds nothing to a pixel that is full
      for (const bar of lane.bars) {
        const from = x(bar.start), to = x(bar.end), wide = Math.max(to - from - (to - from > 3 ? 1 : 0), 1);
        if (bar.state === "done" && to < drawn) continue;
        drawn = from + 1;
        shape(c, paint, bar.state, from, y + 1, wide, high - (high > 8 ? 3 : 1));
        c.strokeStyle = paint.ink;
        if (bar === this.chosen?.bar) c.strokeRect(from, y + 1, wide, high - 3);
        c.font = `${high > 14 ? 11 : 10}px system-ui, sans-serif`;
        const room = wide - (bar.state === "running" ? 14 : 6), long = `${title(bar)}: ${STATES[bar.state]}`;
        if (high < 12 || room < 40 || !["running", "done", "lost", "returned"].includes(bar.state)) continue;
        const said = ["lost", "returned"].includes(bar.state) ? [long, long.split(";")[0]] : [];
        const text = said.find((each) => c.measureText(each).width < room) ?? title(bar);
        c.fillStyle = bar.state === "running" ? paint.paper : paint.ink;
        c.textAlign = "left";
        const part = room / c.measureText(text).width;
        c.fillText(part < 1 ? text.slice(0, text.length * part - 1) + "…" : text, from + 4, y + high / 2 + 2.5);
      }
    }

    axis(c, paint, end) {
      for (const ago of [0, 5, 10, 15, SPAN]) {
        const x = Math.round(end - ago * this.m.scale);
        c.fillStyle = paint.rule;
        c.fillRect(x, AXIS - 3, 1, this.m.per * this.m.high + 3);
        c.fillStyle = paint.ink;
        c.textAlign = ago ? "center" : "right";
        if (this.m.scale > 9 || !(ago % 10)) c.fillText(ago ? `−${ago} s` : "now", x, 10);
      }
    }

    point(x, y) {
      const { lanes, per, high, left, column, scale } = this.m, lane = lanes[Math.floor(x / column) * per + Math.floor((y - AXIS) / high)];
      const moment = now() - SPAN + ((x % column) - left) / scale;
      if (lane && y > AXIS) this.choose(lane, lane.bars.find((bar) => bar.start <= moment && moment <= (bar.end ?? Infinity)));
    }

    key(event) {
      const [lanes, bars] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
      if (!(lanes || bars) || !this.lanes.length) return;
      event.preventDefault();
      const within = (list, place) => list[Math.max(0, Math.min(place, list.length - 1))];
      const lane = within(this.lanes, this.lanes.indexOf(this.chosen?.lane) + lanes);
      this.choose(lane, within(lane.bars, lanes ? Infinity : lane.bars.indexOf(this.chosen?.bar) + bars));
    }

    choose(lane, bar) {
      this.chosen = { lane, bar };
      say(this.output, [...this.cells(lane, bar), `kill -9 ${lane.pid}`].filter(Boolean).join(", "));
    }

    table() {
      if (this.box.querySelector(".text").open)
        this.tbody.replaceChildren(...this.lanes.map((lane) => row(...this.cells(lane, lane.bars.at(-1)))));
    }

    cells(lane, bar) {
      const who = `${POOLS[this.pool][0]} ${bar ? executor(bar) : lane.number}`;
      if (!bar) return [who, lane.dead ? ended(lane.pid) : "idle", "", "", ""];
      return [who, STATES[bar.state], title(bar), took(bar).toFixed(1) + " s", bar.note ?? ""];
    }
  }

  const group = (family, name, pool) => {
    if (!groups.has(family)) groups.set(family, new Group(family, name, pool));
    return groups.get(family);
  };

  const balance = ({ jobs: pools, submitted, batches, counted }) => {
    const names = ["waiting", "running", "done", "failed", "cancelled"], sums = names.map(() => 0);
    const lines = Object.entries(pools).map(([pool, by]) => row(pool, ...names.map((name, n) => {
      const count = (by[name] ?? 0) + (name === "waiting" ? by.queued ?? 0 : 0);
      sums[n] += count;
      return count;
    })));
    element("totals").tBodies[0].replaceChildren(...lines, row("all", ...sums));
    const sum = sums.reduce((a, b) => a + b), parts = names.map((name, n) => `${sums[n]} ${name}`).join(" + ");
    const of = batches > counted ? ` in the newest ${counted} of ${batches} batches` : "";
    say(element("balance"), `${submitted} submitted${of} ${sum === submitted ? "=" : "≠"} ${parts}`);
  };

  const census = (processes) => {
    const alive = new Map([...groups.keys()].map((family) => [family, []]));
    for (const [name, pool, family, pid] of processes) {
      group(family, name, pool);
      alive.set(family, [...(alive.get(family) ?? []), pid]);
    }
    for (const [family, pids] of alive) groups.get(family).live(pids);
  };

  // Each turn of the tutorial's scenario is a batch: article-STAMP-ROUND-DEPLOYMENT.
  const tutorial = (bar) => {
    const [, stamp, round, name] = /^article-(\d+-\d+-\w+)-(\d+b?)-(.+)\.\d+$/.exec(bar.id) ?? [];
    if (!stamp || name.endsWith("-warm") || stamp < article.stamp) return;
    if (stamp !== article.stamp) Object.assign(article, { stamp, rows: new Map() });
    if (article.rows.get(name)?.round !== round) article.rows.set(name, { round, bars: new Map() });
    article.rows.get(name).bars.set(bar.id, bar);
  };

  const race = () => {
    const lines = [...article.rows].map(([each, { bars }]) => {
      const all = [...bars.values()], times = all.map(took), ends = all.map((bar) => bar.end ?? now());
      const wall = Math.max(...ends) - Math.min(...all.map((bar) => bar.start));
      const name = each === "serial" ? `serial, on ${poolOf(all[0])}` : each, soFar = all.length < 2 || !all.every((bar) => bar.end);
      return [name, times.reduce((a, b) => a + b), Math.max(...times), wall, soFar];
    });
    const max = Math.max(...lines.map((line) => line[1]));
    const cell = (value) => make("span", `${value.toFixed(1)} s`, Object.assign(make("progress"), { max, value }));
    const early = (value) => Object.assign(make("span", `${value.toFixed(1)} s so far`), { className: "early" }); // no proof yet
    element("article").hidden = !lines.length;
    element("article").tBodies[0].replaceChildren(...lines.map(([name, sum, longest, wall, soFar]) =>
      row(name, ...[sum, longest].map(soFar ? early : cell), cell(wall))));
    const where = (place) => lines.filter((line) => Math.abs(line[3] / line[place] - 1) < 0.05).map(([name]) => name);
    const found = [[where(2), "the longest, not the sum"], [where(1), "the sum"]].filter(([names]) => names.length);
    say(element("shown"), lines.every((line) => !line[4]) ? found.map(([names, what]) => `${names.join(", ")}: the total is ${what}.`).join(" ") : "");
  };

  const hear = ({ data }) => {
    const news = JSON.parse(data);
    heard = Date.now();
    offset = Math.min(offset + 0.002, heard / 1000 - news.now);
    if (news.all) {
      open.clear();
      for (const each of groups.values()) for (const lane of each.lanes) lane.bars = [];
    }
    workers = news.workers ?? workers;
    for (const bar of news.bars) {
      const known = open.get(bar.n);
      if (!known) group(bar.family, bar.worker, poolOf(bar)).take(bar);
      const lost = bar.state === "lost" && known?.end; // known before it was heard
      const kept = known ? Object.assign(known, { end: undefined }, bar, lost ? { end: lost } : {}) : bar;
      if (bar.end) open.delete(bar.n); else open.set(bar.n, kept);
      tutorial(kept);
    }
    if (news.totals?.jobs) {
      counted = heard;
      balance(news.totals);
      census(news.totals.processes);
    }
    for (const each of [...groups.values()]) each.refresh(now());
    race();
    element("status").className = "";
    say(element("status"), "live: what happens is here within a second");
  };

  const connect = () => {
    source?.close();
    source = new EventSource(element("main").dataset.feed);
    source.onmessage = hear;
  };
  connect();
  setInterval(() => {
    for (const each of groups.values()) each.table();
    if (faults.allowed) hit("/", "GET");
    if (counted && heard - counted > 5000) say(element("balance"), "The sweep has published no totals for five seconds.");
    if (Date.now() - heard < 8000) return;
    heard = Date.now() - 4000; // for each try four seconds
    element("status").className = "lost";
    say(element("status"), "no connection to Flower, trying again");
    connect();
  }, 1000);

  const legend = Object.entries(STATES).map(([state, words]) => {
    const canvas = make("canvas");
    element("legend").append(make("li", canvas, words));
    return [state, canvas];
  });
  const pace = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 50; // milliseconds
  const colours = [...Object.keys(POOLS), "failed", "cancelled", "unknown", "rule", "paper", "ink"];
  let drawn = 0;
  const frame = (time) => {
    requestAnimationFrame(frame);
    if (time - drawn < pace || !heard) return;
    drawn = time;
    const style = getComputedStyle(document.documentElement);
    const paint = Object.fromEntries(colours.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
    for (const each of groups.values()) each.draw({ ...paint, pool: paint[each.pool] }, now());
    for (const [state, canvas] of legend) shape(prepare(canvas, 38, 14), { ...paint, pool: paint.ink }, state, 1, 1, 36, 12);
  };
  requestAnimationFrame(frame);
})();
