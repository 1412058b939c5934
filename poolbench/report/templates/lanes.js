// The timelines: lanes on canvases that share one span of time. A span is a row of numbers, see ``timelines`` in page.py.
"use strict";
(() => {
  const NAME = 0, QUEUED = 1, RECEIVED = 2, STARTED = 3, BYTE = 4, FINISHED = 5, STEP = 6, WHO = 7, FAILED = 8;
  const AXIS = 24, HEAD = 20, MOST = 340, TALL = 18, LABELLED = 12;
  const root = document.documentElement, tip = document.getElementById("tip");
  const LIGHT = JSON.parse(document.getElementById("light").textContent);
  root.classList.add("scripted");
  let printing = false, shownAt = 0; // where the page stood when the tip was shown

  const colours = () => {
    if (printing) return LIGHT;
    const style = getComputedStyle(root);
    return Object.fromEntries(Object.keys(LIGHT).map((name) => [name, style.getPropertyValue("--" + name).trim()]));
  };

  const seconds = (value) => {
    const size = Math.abs(value);
    if (size >= 1 || size === 0) return value.toFixed(size >= 100 ? 1 : 3) + " s";
    return (value * 1e3).toFixed(size >= 0.1 ? 0 : 1) + " ms";
  };

  const tickSeconds = (value, step) =>
    step >= 0.5 || value === 0 || value >= 1 ? +value.toFixed(4) + " s" : +(value * 1e3).toFixed(3) + " ms";

  const element = (name, text) => Object.assign(document.createElement(name), text === undefined ? {} : { textContent: text });

  // The first span of a lane that ends after the moment; spans are in order and do not overlap.
  const firstAfter = (spans, moment) => {
    let low = 0, high = spans.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (spans[middle][FINISHED] > moment) high = middle; else low = middle + 1;
    }
    return low;
  };

  class Timeline {
    constructor(figure, data, set) {
      Object.assign(this, { data, set, selected: null, pointers: new Map(), moved: 0, rows: [], heads: [] });
      [this.canvas, this.scroll, this.room] = ["canvas", ".scroll", ".room"].map((each) => figure.querySelector(each));
      this.context = this.canvas.getContext("2d");
      const count = data.groups.reduce((sum, group) => sum + group.lanes.length, 0);
      this.tall = Math.max(2, Math.min(TALL, Math.floor(MOST / Math.max(count, 1))));
      let y = AXIS;
      for (const { label, executors, lanes } of data.groups) {
        this.heads.push({ text: label + ": " + executors, y });
        lanes.forEach((lane, n) => this.rows.push({ lane, y: y + HEAD + n * this.tall, group: label }));
        y += HEAD + lanes.length * this.tall + 6;
      }
      this.content = y + 2;
      this.listen();
    }

    // The same for all of a set: their axes stand below each other.
    get left() {
      return this.set.labelled ? Math.min(96, this.width * 0.24) : 4;
    }

    x(tick) {
      const { from, to } = this.set.view;
      return this.left + ((tick - from) / (to - from)) * (this.width - this.left - 6);
    }

    tickAt(x) {
      const { from, to } = this.set.view;
      return from + ((x - this.left) / (this.width - this.left - 6)) * (to - from);
    }

    measure() {
      this.width = this.scroll.clientWidth;
      this.height = Math.min(this.content, printing ? 1500 : 378);
      const ratio = printing ? 2 : Math.min(window.devicePixelRatio || 1, 3);
      this.canvas.style.height = this.height + "px";
      this.canvas.width = Math.round(this.width * ratio);
      this.canvas.height = Math.round(this.height * ratio);
      this.room.style.height = this.content - this.height + "px";
      this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    }

    // -- drawing

    fill(colour, ...box) {
      this.context.fillStyle = colour;
      this.context.fillRect(...box);
    }

    text(colour, align, text, x, y, most) {
      const c = this.context;
      c.font = "11px system-ui, sans-serif";
      c.textAlign = align;
      c.fillStyle = colour;
      c.fillText(text, x, y, most);
    }

    inside(x, y, width, draw) {
      this.context.save();
      this.context.beginPath();
      this.context.rect(x, y, width, this.height);
      this.context.clip();
      draw();
      this.context.restore();
    }

    draw(paint) {
      const top = this.scroll.scrollTop, [ticks, step] = this.ticks();
      const seen = ({ y }) => y - top + HEAD >= AXIS && y - top <= this.height;
      this.paint = paint;
      this.fill(paint.paper, 0, 0, this.width, this.height);
      for (const at of ticks) this.fill(paint.rule, Math.round(this.x(at / this.set.tick)), AXIS, 1, this.height);
      for (const { lane, y } of this.rows.filter(seen)) this.lane(lane, y - top);
      for (const { text, y } of this.heads.filter(seen)) {
        this.fill(paint.paper, 0, y - top, this.width, HEAD - 1);
        this.text(paint.muted, "left", text, 4, y - top + 14, this.width - 8);
      }
      this.fill(paint.paper, 0, 0, this.width, AXIS - 1);
      this.fill(paint.muted, this.left, AXIS - 1, this.width, 1);
      for (const at of ticks) {
        const x = this.x(at / this.set.tick), text = tickSeconds(at, step), half = this.context.measureText(text).width / 2;
        if (x + half < this.width) this.text(paint.muted, "center", text, Math.max(x, half + 2), 15);
      }
      if (this.selected) this.mark(this.selected, top);
    }

    // Round seconds within the view, and the step between them.
    ticks() {
      const from = this.set.view.from * this.set.tick, to = this.set.view.to * this.set.tick;
      const most = Math.max(2, (this.width - this.left) / 80), power = 10 ** Math.floor(Math.log10((to - from) / most));
      const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => (to - from) / each <= most);
      const first = Math.ceil(from / step), count = Math.max(0, Math.floor(to / step) - first + 1);
      return [Array.from({ length: count }, (_, n) => (first + n) * step), step];
    }

    lane({ spans, label }, y) {
      const bar = this.tall > 5 ? this.tall - 2 : this.tall > 2 ? this.tall - 0.5 : this.tall, { from, to } = this.set.view;
      const first = firstAfter(spans, from);
      this.inside(this.left, AXIS, this.width - this.left - 2, () => {
        let drawn = -1; // waits of a lane lie on top of each other: one line is enough
        for (let n = first; n < spans.length; n++) {
          const s = spans[n], begin = Math.max(this.x(s[QUEUED]), this.left, drawn), end = Math.min(this.x(s[STARTED]), this.width);
          if (end - begin >= 0.5) this.fill(this.paint.wait, begin, y + bar / 2 - 0.5, end - begin, this.tall > 8 ? 1.5 : 1);
          drawn = Math.max(drawn, end);
          if (s[RECEIVED] !== null && this.tall > 6) this.fill(this.paint.wait, this.x(s[RECEIVED]) - 0.5, y + 2, 1, bar - 4);
          if (s[QUEUED] > to) break;
        }
        for (let n = first; n < spans.length && spans[n][STARTED] <= to; n++) this.span(spans[n], y, bar);
      });
      if (this.tall >= LABELLED) this.text(this.paint.muted, "right", label, this.left - 6, y + bar / 2 + 4, this.left - 8);
    }

    span(s, y, bar) {
      const begin = this.x(s[STARTED]), end = this.x(s[FINISHED]), paint = this.paint;
      const wide = Math.max(end - begin - (end - begin > 3 ? 1 : 0), 1);
      this.fill(paint.paper, begin, y, wide, bar);
      if (s.length > FAILED) return this.failed(begin, y, wide, bar);
      const byte = s[BYTE] === null || wide < 3 ? begin : this.x(s[BYTE]);
      this.context.globalAlpha = 0.5;
      this.fill(paint[this.data.look], begin, y, Math.min(byte - begin, wide), bar);
      this.context.globalAlpha = 1;
      this.fill(paint[this.data.look], Math.min(byte, begin + wide - 1), y, Math.max(begin + wide - byte, 1), bar);
      const step = Math.min(end - this.x(s[FINISHED] - s[STEP]), wide);
      if (step) this.fill(paint.ink, begin + wide - step, y + bar * 0.65, step, bar * 0.35);
      const since = Math.max(byte, begin, this.left), room = begin + wide - since;
      if (this.tall < LABELLED || room <= 46) return;
      const name = () => this.text(paint.on, "left", this.set.names[s[NAME]], since + 5, y + bar / 2 + 4);
      this.inside(since + 3, 0, room - 6, name);
    }

    lines(width, ...lines) {
      const c = this.context;
      c.strokeStyle = this.paint.ink;
      c.lineWidth = width;
      c.beginPath();
      for (const [x, y, toX, toY] of lines) {
        c.moveTo(x, y);
        c.lineTo(toX, toY);
      }
      c.stroke();
    }

    failed(begin, y, wide, bar) {
      const x = begin + wide / 2, m = y + bar / 2, r = bar < 5 || wide < 5 ? 0 : Math.min(bar, wide) / 3;
      this.lines(1, [x - r, m - r, x + r, m + r], [x + r, m - r, x - r, m + r]);
      this.context.strokeRect(begin + 0.5, y + 0.5, Math.max(wide - 1, 0.5), bar - 1);
    }

    mark({ row, span }, top) {
      const y = row.y - top, begin = this.x(span[STARTED]), since = this.x(span[QUEUED]), middle = y + this.tall / 2;
      this.inside(this.left, AXIS, this.width - this.left, () => {
        this.lines(2, [since, middle - 4, since, middle + 4], [since, middle, begin, middle]);
        const wide = Math.max(this.x(span[FINISHED]) - begin, 2);
        this.context.strokeRect(begin - 1, y - 1, wide + 1, Math.max(this.tall, 4));
      });
    }

    // -- pointer and keyboard

    listen() {
      const on = (name, does, options) => this.canvas.addEventListener(name, does, options);
      this.scroll.addEventListener("scroll", () => this.set.later());
      on("keydown", (event) => this.key(event));
      on("blur", () => this.choose(null));
      on("wheel", (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        this.set.zoom(Math.exp(event.deltaY * 0.004), this.tickAt(event.offsetX));
      }, { passive: false });
      on("pointerdown", (event) => {
        this.pointers.set(event.pointerId, event);
        this.moved = 0;
      });
      on("pointermove", (event) => this.move(event));
      for (const name of ["pointerup", "pointercancel", "pointerleave"]) on(name, (event) => this.lift(event));
    }

    move(event) {
      const before = this.pointers.get(event.pointerId);
      if (!before) {
        if (event.pointerType === "mouse") this.choose(this.at(event), event);
        return;
      }
      const dx = event.clientX - before.clientX;
      this.moved += Math.abs(dx);
      if (this.moved > 4) {
        this.canvas.setPointerCapture(event.pointerId);
        if (this.pointers.size === 1) this.set.pan(this.tickAt(0) - this.tickAt(dx));
        else this.pinch(event, before);
      }
      this.pointers.set(event.pointerId, event);
    }

    pinch(event, before) {
      const other = [...this.pointers.values()].find((each) => each.pointerId !== event.pointerId);
      const was = Math.abs(before.clientX - other.clientX), is = Math.abs(event.clientX - other.clientX);
      const middle = (event.clientX + other.clientX) / 2 - this.canvas.getBoundingClientRect().left;
      if (was > 8 && is > 8) this.set.zoom(was / is, this.tickAt(middle));
    }

    lift(event) {
      const tapped = this.pointers.delete(event.pointerId) && this.moved <= 4 && event.type === "pointerup";
      if (tapped) this.choose(this.at(event), event);
      else if (event.pointerType === "mouse" && event.type === "pointerleave") this.choose(null);
    }

    at(event) {
      const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      const place = y + this.scroll.scrollTop;
      const row = this.rows.find((each) => each.y <= place && place < each.y + this.tall);
      if (x < this.left || y < AXIS || !row) return null;
      const tick = this.tickAt(x), slack = this.tickAt(3) - this.tickAt(0), spans = row.lane.spans;
      const span = spans[firstAfter(spans, tick - slack)];
      return span && span[QUEUED] <= tick + slack ? { row, span } : null;
    }

    key(event) {
      const set = this.set, middle = this.selected ? this.selected.span[STARTED] : (set.view.from + set.view.to) / 2;
      const does = {
        "+": () => set.zoom(0.6, middle), "=": () => set.zoom(0.6, middle), "-": () => set.zoom(1 / 0.6, middle),
        0: () => set.all(), Escape: () => this.choose(null),
        ArrowRight: () => this.along(1), ArrowLeft: () => this.along(-1),
        ArrowDown: () => this.across(1), ArrowUp: () => this.across(-1),
      }[event.key];
      if (!does || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      does();
    }

    along(way) {
      if (!this.selected) return this.across(1);
      const { row, span } = this.selected, spans = row.lane.spans, next = spans[spans.indexOf(span) + way];
      if (next) this.show({ row, span: next });
    }

    across(way) {
      const rows = this.rows.filter((each) => each.lane.spans.length), old = this.selected;
      const row = old ? rows[rows.indexOf(old.row) + way] : rows[0];
      if (!row) return;
      const spans = row.lane.spans, near = old ? firstAfter(spans, old.span[STARTED]) : 0;
      this.show({ row, span: spans[Math.min(near, spans.length - 1)] });
    }

    show(found) {
      const { from, to } = this.set.view, { row, span } = found, scroll = this.scroll;
      if (span[STARTED] > to || span[FINISHED] < from) this.set.pan(span[STARTED] - (from + to) / 2);
      if (row.y - scroll.scrollTop < AXIS) scroll.scrollTop = row.y - AXIS - 4;
      if (row.y + this.tall - scroll.scrollTop > this.height) scroll.scrollTop = row.y + this.tall - this.height + 4;
      const box = this.canvas.getBoundingClientRect(), x = Math.max(this.x(span[STARTED]), this.left);
      this.choose(found, { clientX: box.left + x, clientY: box.top + row.y - scroll.scrollTop + this.tall });
      this.set.say(this.words(found).map((pair) => pair.join(" ")).join(", "));
    }

    words({ row, span: s }) {
      const t = this.set.tick, at = (field) => (s[field] === null ? "not seen" : seconds(s[field] * t));
      return [
        [this.set.names[s[NAME]], ""], ["", row.lane.label + (s[WHO] ? ": " + s[WHO] : "") + " of " + row.group],
        ["enqueued", at(QUEUED)], ["received", at(RECEIVED)], ["started", at(STARTED)], ["first byte", at(BYTE)],
        ["finished", at(FINISHED)], ["waited", seconds((s[STARTED] - s[QUEUED]) * t)],
        ["ran", seconds((s[FINISHED] - s[STARTED]) * t)],
        ...(s[STEP] ? [["of it the step", at(STEP)]] : []), ...(s.length > FAILED ? [["failed", s[FAILED]]] : []),
      ];
    }

    choose(found, place) {
      const same = this.selected && found && this.selected.span === found.span;
      this.selected = found;
      tip.hidden = !found;
      if (!same) this.set.later();
      if (!found) return;
      shownAt = window.scrollY;
      const [[title], [, who], ...rest] = this.words(found);
      tip.replaceChildren(element("strong", title), element("span", who), element("div"));
      tip.lastChild.append(...rest.flat().map((text) => element("span", text)));
      const box = tip.getBoundingClientRect(), x = Math.min(place.clientX + 14, root.clientWidth - box.width - 8);
      const below = place.clientY + 16, fits = below + box.height <= window.innerHeight - 8;
      tip.style.left = Math.max(8, x) + window.scrollX + "px";
      tip.style.top = (fits ? below : Math.max(8, place.clientY - box.height - 14)) + window.scrollY + "px";
    }
  }

  // The timelines of a section: one span of time for all.
  class Timelines {
    constructor(box) {
      const { names, tick, deployments } = JSON.parse(document.getElementById("timelines-" + box.dataset.number).textContent);
      const end = Math.max(1, ...deployments.map((each) => each.end)) * 1.02;
      Object.assign(this, { box, names, tick, end, view: { from: 0, to: end } });
      this.each = [...box.querySelectorAll(".timeline")].map((figure, n) => new Timeline(figure, deployments[n], this));
      this.labelled = this.each.some((each) => each.tall >= LABELLED);
      box.querySelector(".controls").addEventListener("click", (event) => this.press(event.target.dataset.do));
      new ResizeObserver(() => this.resize()).observe(box);
      this.resize();
    }

    press(what) {
      const { from, to } = this.view, third = (to - from) / 3;
      // Zoomed around the left edge: everything begins there.
      const does = {
        in: () => this.zoom(0.5, from), out: () => this.zoom(2, from),
        left: () => this.pan(-third), right: () => this.pan(third), all: () => this.all(),
      }[what];
      if (does) does();
    }

    all() {
      this.look(0, this.end);
    }

    zoom(factor, around) {
      const { from, to } = this.view, share = (around - from) / (to - from);
      const span = Math.max(20, Math.min((to - from) * factor, this.end));
      this.look(around - share * span, span);
    }

    pan(ticks) {
      this.look(this.view.from + ticks, this.view.to - this.view.from);
    }

    look(from, span) {
      const start = Math.max(0, Math.min(from, this.end - span));
      this.view = { from: start, to: start + span };
      this.later();
    }

    resize() {
      for (const each of this.each) each.measure();
      this.draw();
    }

    later() {
      this.asked ||= requestAnimationFrame(() => { this.asked = 0; this.draw(); });
    }

    draw() {
      const paint = colours(), { from, to } = this.view;
      for (const each of this.each) each.draw(paint);
      this.box.querySelector(".span").textContent = seconds(from * this.tick) + " to " + seconds(to * this.tick);
    }

    say(text) {
      this.box.querySelector(".told").textContent = text;
    }
  }

  const all = [...document.querySelectorAll(".timelines")].map((box) => new Timelines(box));
  const again = () => all.forEach((each) => each.resize());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  window.addEventListener("scroll", () => { tip.hidden ||= window.scrollY !== shownAt; }, { passive: true });
  let closed = [];
  const print = (begins) => {
    printing = begins;
    if (begins) closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((each) => { each.open = begins; });
    again();
  };
  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));
})();
