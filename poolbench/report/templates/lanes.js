// The timelines: lanes on canvases that share one span of time. A strip is a row of numbers, see ``timelines`` in page.py.
"use strict";
(() => {
  const NAME = 0, QUEUED = 1, RECEIVED = 2, STARTED = 3, BYTE = 4, FINISHED = 5, STEP = 6, WHO = 7, FAILED = 8;
  const AXIS = 24, HEAD = 20, MOST = 340, TALL = 18, LABELLED = 12;
  const root = document.documentElement, tip = document.getElementById("tip");
  const LIGHT = JSON.parse(document.getElementById("light").textContent);
  root.classList.add("scripted");
  let printing = false;

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

  const tickSeconds = (value, step) => {
    if (step >= 0.5 || value === 0) return +value.toFixed(3) + " s";
    return value < 1 ? +(value * 1e3).toFixed(3) + " ms" : +value.toFixed(4) + " s";
  };

  // The first strip of a lane that ends after the moment; strips are in order and do not overlap.
  const firstAfter = (strips, moment) => {
    let low = 0, high = strips.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (strips[middle][FINISHED] > moment) high = middle; else low = middle + 1;
    }
    return low;
  };

  class Timeline {
    constructor(figure, data, set) {
      this.data = data;
      this.set = set;
      this.canvas = figure.querySelector("canvas");
      this.scroll = figure.querySelector(".scroll");
      this.room = figure.querySelector(".room");
      this.context = this.canvas.getContext("2d");
      this.lanes = [];
      const count = data.groups.reduce((sum, group) => sum + group.lanes.length, 0);
      this.tall = Math.max(2, Math.min(TALL, Math.floor(MOST / Math.max(count, 1))));
      let y = AXIS;
      for (const group of data.groups) {
        this.lanes.push({ head: group.label + ": " + group.executors, y });
        y += HEAD;
        for (const lane of group.lanes) {
          this.lanes.push({ lane, y, group: group.label });
          y += this.tall;
        }
        y += 6;
      }
      this.content = y + 2;
      this.selected = null;
      this.pointers = new Map();
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

    draw(paint) {
      const c = this.context, top = this.scroll.scrollTop;
      this.paint = paint;
      c.fillStyle = paint.paper;
      c.fillRect(0, 0, this.width, this.height);
      this.grid(c);
      for (const row of this.lanes) {
        const y = row.y - top;
        if (y + HEAD < AXIS || y > this.height) continue;
        if (row.head) this.head(c, row.head, y);
        else this.row(c, row.lane, y);
      }
      this.axis(c);
      if (this.selected) this.mark(c, this.selected, top);
    }

    steps() {
      const span = (this.set.view.to - this.set.view.from) * this.set.tick;
      const most = Math.max(2, (this.width - this.left) / 80);
      const power = 10 ** Math.floor(Math.log10(span / most));
      const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => span / each <= most);
      const found = [];
      for (let n = Math.ceil((this.set.view.from * this.set.tick) / step); n * step <= this.set.view.to * this.set.tick; n++)
        found.push(n * step);
      return [found, step];
    }

    grid(c) {
      c.fillStyle = this.paint.rule;
      for (const at of this.steps()[0]) c.fillRect(Math.round(this.x(at / this.set.tick)), AXIS, 1, this.height);
    }

    axis(c) {
      c.fillStyle = this.paint.paper;
      c.fillRect(0, 0, this.width, AXIS - 1);
      c.fillStyle = this.paint.muted;
      c.fillRect(this.left, AXIS - 1, this.width, 1);
      c.font = "11px system-ui, sans-serif";
      const [found, step] = this.steps();
      for (const at of found) {
        const x = this.x(at / this.set.tick), text = tickSeconds(at, step), half = c.measureText(text).width / 2;
        c.textAlign = "center";
        if (x + half < this.width) c.fillText(text, Math.max(x, half + 2), 15);
      }
    }

    head(c, text, y) {
      c.font = "11px system-ui, sans-serif";
      c.textAlign = "left";
      c.fillStyle = this.paint.paper;
      c.fillRect(0, y, this.width, HEAD - 1);
      c.fillStyle = this.paint.muted;
      c.fillText(text, 4, y + 14, this.width - 8);
    }

    row(c, lane, y) {
      const { from, to } = this.set.view, bar = this.tall > 5 ? this.tall - 2 : this.tall > 2 ? this.tall - 0.5 : this.tall;
      c.save();
      c.beginPath();
      c.rect(this.left, AXIS, this.width - this.left - 2, this.height);
      c.clip();
      const first = firstAfter(lane.spans, from);
      c.fillStyle = this.paint.wait;
      let drawn = -1; // waits of a lane lie on top of each other: one line is enough
      for (let n = first; n < lane.spans.length; n++) {
        const s = lane.spans[n], begin = Math.max(this.x(s[QUEUED]), this.left, drawn), end = Math.min(this.x(s[STARTED]), this.width);
        if (end - begin >= 0.5) c.fillRect(begin, y + bar / 2 - 0.5, end - begin, this.tall > 8 ? 1.5 : 1);
        drawn = Math.max(drawn, end);
        if (s[RECEIVED] !== null && this.tall > 6) c.fillRect(this.x(s[RECEIVED]) - 0.5, y + 2, 1, bar - 4);
        if (s[QUEUED] > to) break;
      }
      for (let n = first; n < lane.spans.length && lane.spans[n][STARTED] <= to; n++) this.strip(c, lane.spans[n], y, bar);
      c.restore();
      if (this.tall >= LABELLED) {
        c.font = "11px system-ui, sans-serif";
        c.textAlign = "right";
        c.fillStyle = this.paint.muted;
        c.fillText(lane.label, this.left - 6, y + bar / 2 + 4, this.left - 8);
      }
    }

    strip(c, s, y, bar) {
      const begin = this.x(s[STARTED]), end = this.x(s[FINISHED]), gap = end - begin > 3 ? 1 : 0;
      const wide = Math.max(end - begin - gap, 1), colour = this.paint[this.data.look];
      if (s.length > FAILED) return this.failed(c, begin, y, wide, bar);
      const byte = s[BYTE] === null || wide < 3 ? begin : this.x(s[BYTE]);
      c.fillStyle = this.paint.paper;
      c.fillRect(begin, y, wide, bar);
      c.fillStyle = colour;
      c.globalAlpha = 0.5;
      c.fillRect(begin, y, Math.min(byte - begin, wide), bar);
      c.globalAlpha = 1;
      c.fillRect(Math.min(byte, begin + wide - Math.min(1, wide)), y, Math.max(begin + wide - byte, 1), bar);
      if (s[STEP]) {
        const step = Math.min(end - this.x(s[FINISHED] - s[STEP]), wide);
        c.fillStyle = this.paint.ink;
        c.fillRect(begin + wide - step, y + bar * 0.65, step, bar * 0.35);
      }
      const since = Math.max(byte, begin, this.left);
      if (this.tall >= LABELLED && begin + wide - since > 46) this.name(c, s, since, begin + wide, y + bar / 2 + 4);
    }

    name(c, s, begin, end, y) {
      const text = this.set.names[s[NAME]];
      c.save();
      c.beginPath();
      c.rect(begin + 3, 0, end - begin - 6, this.height);
      c.clip();
      c.font = "11px system-ui, sans-serif";
      c.textAlign = "left";
      c.fillStyle = this.paint.on;
      c.fillText(text, begin + 5, y);
      c.restore();
    }

    failed(c, begin, y, wide, bar) {
      c.strokeStyle = this.paint.ink;
      c.lineWidth = 1;
      c.fillStyle = this.paint.paper;
      c.fillRect(begin, y, wide, bar);
      c.strokeRect(begin + 0.5, y + 0.5, Math.max(wide - 1, 0.5), bar - 1);
      if (bar < 5 || wide < 5) return;
      const x = begin + wide / 2, m = y + bar / 2, r = Math.min(bar, wide) / 3;
      c.beginPath();
      c.moveTo(x - r, m - r); c.lineTo(x + r, m + r);
      c.moveTo(x + r, m - r); c.lineTo(x - r, m + r);
      c.stroke();
    }

    mark(c, { row, strip }, top) {
      const y = row.y - top, begin = this.x(strip[STARTED]), end = this.x(strip[FINISHED]), since = this.x(strip[QUEUED]);
      c.save();
      c.beginPath();
      c.rect(this.left, AXIS, this.width - this.left, this.height);
      c.clip();
      c.strokeStyle = this.paint.ink;
      c.lineWidth = 2;
      c.strokeRect(begin - 1, y - 1, Math.max(end - begin, 2) + 1, Math.max(this.tall, 4));
      c.beginPath();
      c.moveTo(since, y + this.tall / 2 - 4); c.lineTo(since, y + this.tall / 2 + 4);
      c.moveTo(since, y + this.tall / 2); c.lineTo(begin, y + this.tall / 2);
      c.stroke();
      c.restore();
    }

    // -- who points at what

    listen() {
      const canvas = this.canvas;
      this.scroll.addEventListener("scroll", () => this.set.later());
      canvas.addEventListener("keydown", (event) => this.key(event));
      canvas.addEventListener("blur", () => this.choose(null));
      canvas.addEventListener("wheel", (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        this.set.zoom(Math.exp(event.deltaY * 0.004), this.tickAt(event.offsetX));
      }, { passive: false });
      canvas.addEventListener("pointerdown", (event) => {
        this.pointers.set(event.pointerId, event);
        this.moved = 0;
      });
      canvas.addEventListener("pointermove", (event) => this.move(event));
      for (const name of ["pointerup", "pointercancel", "pointerleave"])
        canvas.addEventListener(name, (event) => this.lift(event));
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
        if (!canvasHas(this.canvas, event.pointerId)) this.canvas.setPointerCapture(event.pointerId);
        if (this.pointers.size === 1) this.set.pan(this.tickAt(0) - this.tickAt(dx));
        else this.pinch(event);
      }
      this.pointers.set(event.pointerId, event);
    }

    pinch(event) {
      const [other] = [...this.pointers.values()].filter((each) => each.pointerId !== event.pointerId);
      const before = this.pointers.get(event.pointerId);
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
      const box = this.canvas.getBoundingClientRect();
      const x = event.clientX - box.left, y = event.clientY - box.top + this.scroll.scrollTop;
      if (x < this.left || event.clientY - box.top < AXIS) return null;
      const row = this.lanes.find((each) => each.lane && each.y <= y && y < each.y + this.tall);
      if (!row) return null;
      const tick = this.tickAt(x), slack = this.tickAt(3) - this.tickAt(0), strips = row.lane.spans;
      const near = strips[firstAfter(strips, tick - slack)];
      return near && near[QUEUED] <= tick + slack ? { row, strip: near } : null;
    }

    key(event) {
      const set = this.set, middle = this.selected ? this.selected.strip[STARTED] : (set.view.from + set.view.to) / 2;
      const does = {
        "+": () => set.zoom(0.6, middle), "=": () => set.zoom(0.6, middle), "-": () => set.zoom(1 / 0.6, middle),
        0: () => set.all(), Escape: () => this.choose(null),
        ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1),
        ArrowDown: () => this.aside(1), ArrowUp: () => this.aside(-1),
      }[event.key];
      if (!does || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      does();
    }

    step(way) {
      const { row, strip } = this.selected || {};
      if (!row) return this.aside(1);
      const strips = row.lane.spans, next = strips[strips.indexOf(strip) + way];
      if (next) this.show({ row, strip: next });
    }

    aside(way) {
      const rows = this.lanes.filter((each) => each.lane && each.lane.spans.length);
      if (!rows.length) return;
      const old = this.selected;
      const row = old ? rows[rows.indexOf(old.row) + way] : rows[0];
      if (!row) return;
      const near = old ? firstAfter(row.lane.spans, old.strip[STARTED]) : 0;
      this.show({ row, strip: row.lane.spans[Math.min(near, row.lane.spans.length - 1)] });
    }

    show(found) {
      const { from, to } = this.set.view, { row, strip } = found;
      if (strip[STARTED] > to || strip[FINISHED] < from) this.set.pan(strip[STARTED] - (from + to) / 2);
      if (row.y - this.scroll.scrollTop < AXIS) this.scroll.scrollTop = row.y - AXIS - 4;
      if (row.y + this.tall - this.scroll.scrollTop > this.height) this.scroll.scrollTop = row.y + this.tall - this.height + 4;
      const box = this.canvas.getBoundingClientRect();
      const place = { clientX: box.left + Math.max(this.x(strip[STARTED]), this.left), clientY: box.top + row.y - this.scroll.scrollTop + this.tall };
      this.choose(found, place);
      this.set.say(this.words(found).map((pair) => pair.join(" ")).join(", "));
    }

    words({ row, strip: s }) {
      const t = this.set.tick, at = (field) => (s[field] === null ? "not seen" : seconds(s[field] * t));
      const who = row.lane.label + (s[WHO] ? ": " + s[WHO] : "") + " of " + row.group;
      const told = [
        [this.set.names[s[NAME]], ""], ["", who], ["enqueued", at(QUEUED)], ["received", at(RECEIVED)],
        ["started", at(STARTED)], ["first byte", at(BYTE)], ["finished", at(FINISHED)],
        ["waited", seconds((s[STARTED] - s[QUEUED]) * t)], ["ran", seconds((s[FINISHED] - s[STARTED]) * t)],
      ];
      if (s[STEP]) told.push(["of it the step", seconds(s[STEP] * t)]);
      if (s.length > FAILED) told.push(["failed", s[FAILED]]);
      return told;
    }

    choose(found, place) {
      const same = this.selected && found && this.selected.strip === found.strip;
      this.selected = found;
      tip.hidden = !found;
      if (!same) this.set.later();
      if (!found) return;
      const [[title], [, who], ...rest] = this.words(found);
      tip.replaceChildren(element("strong", title), element("span", who), element("div"));
      for (const pair of rest) for (const text of pair) tip.lastChild.append(element("span", text));
      const box = tip.getBoundingClientRect(), wide = root.clientWidth;
      let x = place.clientX + 14, y = place.clientY + 16;
      if (x + box.width > wide - 8) x = Math.max(8, wide - box.width - 8);
      if (y + box.height > window.innerHeight - 8) y = Math.max(8, place.clientY - box.height - 14);
      tip.style.left = x + window.scrollX + "px";
      tip.style.top = y + window.scrollY + "px";
    }
  }

  const canvasHas = (canvas, id) => canvas.hasPointerCapture(id);

  const element = (name, text) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // The timelines of a section: one span of time for all.
  class Timelines {
    constructor(box) {
      const data = JSON.parse(document.getElementById("timelines-" + box.dataset.number).textContent);
      this.names = data.names;
      this.tick = data.tick;
      this.end = Math.max(1, ...data.deployments.map((each) => each.end));
      this.box = box;
      this.each = [...box.querySelectorAll(".timeline")].map((figure, n) => new Timeline(figure, data.deployments[n], this));
      this.labelled = this.each.some((each) => each.tall >= LABELLED);
      box.querySelector(".controls").addEventListener("click", (event) => this.press(event.target.dataset.do));
      new ResizeObserver(() => this.resize()).observe(box);
      this.view = { from: 0, to: this.end * 1.02 };
      this.resize();
    }

    press(what) {
      const { from, to } = this.view, span = to - from;
      // Around the left edge: everything begins there.
      if (what === "in") this.zoom(0.5, from);
      if (what === "out") this.zoom(2, from);
      if (what === "left") this.pan(-span / 3);
      if (what === "right") this.pan(span / 3);
      if (what === "all") this.all();
    }

    all() {
      this.look(0, this.end * 1.02);
    }

    zoom(factor, around) {
      const { from, to } = this.view;
      const span = Math.max(20, Math.min((to - from) * factor, this.end * 1.02)), share = (around - from) / (to - from);
      this.look(around - share * span, around + (1 - share) * span);
    }

    pan(ticks) {
      this.look(this.view.from + ticks, this.view.to + ticks);
    }

    look(from, to) {
      const span = to - from, most = this.end * 1.02;
      const start = Math.max(0, Math.min(from, most - span));
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
      const paint = colours();
      for (const each of this.each) each.draw(paint);
      const { from, to } = this.view;
      this.box.querySelector(".span").textContent = seconds(from * this.tick) + " to " + seconds(to * this.tick);
    }

    say(text) {
      this.box.querySelector(".told").textContent = text;
    }
  }

  const all = [...document.querySelectorAll(".timelines")].map((box) => new Timelines(box));
  const again = () => all.forEach((each) => each.resize());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  window.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((each) => { each.open = true; });
    printing = true;
    again();
  });
  window.addEventListener("afterprint", () => {
    closed.forEach((each) => { each.open = false; });
    printing = false;
    again();
  });

  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-raw]");
    if (!link || link.href.startsWith("blob:")) return;
    const text = atob(document.getElementById("raw-" + link.dataset.raw).textContent.trim());
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    link.href = URL.createObjectURL(new Blob([bytes], { type: "application/gzip" }));
  });
})();
