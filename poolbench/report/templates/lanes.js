// The timelines: lanes on canvases that share one span of time. A span is a row of numbers, see ``timelines`` in page.py.
"use strict";
(() => {
  const [NAME, QUEUED, RECEIVED, STARTED, BYTE, FINISHED, STEP, WHO, FAILED] = Array(9).keys();
  const AXIS = 24, HEAD = 20, MOST = 340, TALL = 18, LABELLED = 12;
  const ZOOMS = { "+": "in", "=": "in", "-": "out", 0: "all" };
  const WAYS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }; // lanes, bars
  const root = document.documentElement, tip = document.getElementById("tip");
  const LIGHT = JSON.parse(document.getElementById("light").textContent);
  root.classList.add("scripted");
  let printing = false, shownAt = 0; // where the page stood when the tip was shown

  const colours = () => {
    if (printing) return LIGHT;
    const style = getComputedStyle(root);
    return Object.fromEntries(Object.keys(LIGHT).map((name) => [name, style.getPropertyValue("--" + name).trim()]));
  };

  const seconds = (value) => (value >= 1 || value === 0 ? value.toFixed(3) + " s" : (value * 1e3).toFixed(1) + " ms");

  const element = (name, text = "") => Object.assign(document.createElement(name), { textContent: text });

  class Timeline {
    constructor(figure, data, set) {
      Object.assign(this, { data, set, selected: null, pointers: new Map(), moved: 0, rows: [], heads: [] });
      [this.canvas, this.scroll, this.room] = ["canvas", ".scroll", ".room"].map((each) => figure.querySelector(each));
      this.context = this.canvas.getContext("2d");
      const count = data.groups.reduce((sum, group) => sum + group.lanes.length, 0);
      this.tall = Math.max(2, Math.min(TALL, Math.floor(MOST / Math.max(count, 1))));
      this.bar = this.tall > 4 ? this.tall - 2 : this.tall;
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

    // -- drawing: what is left of the lanes is painted over

    fill(colour, ...box) {
      this.context.fillStyle = colour;
      this.context.fillRect(...box);
    }

    stroke(width, path) {
      Object.assign(this.context, { strokeStyle: this.paint.ink, lineWidth: width });
      this.context.stroke(new Path2D(path));
    }

    text(colour, align, text, x, y, most) {
      Object.assign(this.context, { font: "11px system-ui, sans-serif", textAlign: align, fillStyle: colour });
      this.context.fillText(text, x, y, most);
    }

    draw(paint) {
      const { width, height, left } = this, top = this.scroll.scrollTop, ticks = this.ticks();
      const seen = ({ y }) => y - top + HEAD >= AXIS && y - top <= height, rows = this.rows.filter(seen);
      this.paint = paint;
      this.fill(paint.paper, 0, 0, width, height);
      for (const tick of ticks) this.fill(paint.rule, Math.round(this.x(tick)), AXIS, 1, height);
      for (const { lane, y } of rows) this.lane(lane.spans, y - top);
      if (this.selected) this.mark(this.selected, top);
      this.fill(paint.paper, 0, AXIS, left, height);
      for (const { lane, y } of this.tall < LABELLED ? [] : rows)
        this.text(paint.muted, "right", lane.label, left - 6, y - top + this.bar / 2 + 4, left - 8);
      for (const { text, y } of this.heads.filter(seen)) {
        this.fill(paint.paper, 0, y - top, width, HEAD - 1);
        this.text(paint.muted, "left", text, 4, y - top + 14, width - 8);
      }
      this.fill(paint.paper, 0, 0, width, AXIS - 1);
      this.fill(paint.muted, left, AXIS - 1, width, 1);
      for (const tick of ticks) {
        const x = this.x(tick), text = +(tick * this.set.tick).toFixed(6) + " s";
        if (x + 24 < width) this.text(paint.muted, "center", text, Math.max(x, 14), 15);
      }
    }

    // Those of round seconds within the view.
    ticks() {
      const { view: { from, to }, tick } = this.set, span = (to - from) * tick;
      const most = Math.max(2, (this.width - this.left) / 80), power = 10 ** Math.floor(Math.log10(span / most));
      const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => span / each <= most) / tick;
      const first = Math.ceil(from / step), count = Math.max(0, Math.floor(to / step) - first + 1);
      return Array.from({ length: count }, (_, n) => (first + n) * step);
    }

    lane(spans, y) {
      const { bar, paint } = this, { from, to } = this.set.view;
      const seen = spans.filter((s) => s[FINISHED] > from && s[QUEUED] <= to);
      for (const s of seen) {
        const since = this.x(s[QUEUED]);
        this.fill(paint.wait, since, y + bar / 2 - 0.5, this.x(s[STARTED]) - since, 1);
        if (s[RECEIVED] !== null) this.fill(paint.wait, this.x(s[RECEIVED]) - 0.5, y + 2, 1, Math.max(bar - 4, 0));
      }
      for (const s of seen) this.span(s, y);
    }

    span(s, y) {
      const { bar, paint, context } = this, begin = this.x(s[STARTED]), end = this.x(s[FINISHED]);
      const wide = Math.max(end - begin - (end - begin > 3 ? 1 : 0), 1);
      this.fill(paint.paper, begin, y, wide, bar);
      if (s.length > FAILED)
        return this.stroke(1, `M${begin} ${y}h${wide}v${bar}h${-wide}zl${wide} ${bar}m0 ${-bar}l${-wide} ${bar}`);
      const byte = Math.min(s[BYTE] === null ? begin : this.x(s[BYTE]), begin + wide - 1);
      context.globalAlpha = 0.5;
      this.fill(paint[this.data.look], begin, y, wide, bar);
      context.globalAlpha = 1;
      this.fill(paint[this.data.look], byte, y, begin + wide - byte, bar);
      const step = Math.min(end - this.x(s[FINISHED] - s[STEP]), wide);
      this.fill(paint.ink, begin + wide - step, y + bar * 0.65, step, bar * 0.35);
      const since = Math.max(byte, this.left), room = begin + wide - since, name = this.set.names[s[NAME]];
      if (this.tall >= LABELLED && room > 46)
        this.text(paint.on, "left", name.slice(0, room / 6), since + 5, y + bar / 2 + 4, room - 8);
    }

    // Frames a bar, and shows since when it waited.
    mark({ row, span }, top) {
      const y = row.y - top, begin = this.x(span[STARTED]), since = this.x(span[QUEUED]);
      const wide = Math.max(this.x(span[FINISHED]) - begin, 2) + 1, tall = Math.max(this.tall, 4);
      const waited = `M${since} ${y + this.tall / 2 - 4}v8m0-4H${begin}`;
      this.stroke(2, `${waited}M${begin - 1} ${y - 1}h${wide}v${tall}h${-wide}z`);
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

    // One pointer that is down drags, two of them pinch.
    move(event) {
      const { clientX, pointerId } = event, before = this.pointers.get(pointerId);
      if (!before && event.pointerType === "mouse") this.choose(this.at(event), event);
      if (!before) return;
      const dx = clientX - before.clientX, other = [...this.pointers.values()].find((each) => each !== before);
      this.pointers.set(pointerId, event);
      this.moved += Math.abs(dx);
      if (this.moved <= 4) return;
      this.canvas.setPointerCapture(pointerId);
      if (!other) return this.set.pan(this.tickAt(0) - this.tickAt(dx));
      const was = Math.abs(before.clientX - other.clientX), is = Math.abs(clientX - other.clientX);
      const middle = (clientX + other.clientX) / 2 - this.canvas.getBoundingClientRect().left;
      if (was > 8 && is > 8) this.set.zoom(was / is, this.tickAt(middle));
    }

    lift(event) {
      const tapped = this.pointers.delete(event.pointerId) && this.moved <= 4 && event.type === "pointerup";
      if (tapped) this.choose(this.at(event), event);
      else if (event.pointerType === "mouse" && event.type === "pointerleave") this.choose(null);
    }

    at({ offsetX, offsetY }) {
      const place = offsetY + this.scroll.scrollTop, tick = this.tickAt(offsetX), slack = this.tickAt(3) - this.tickAt(0);
      const row = this.rows.find((each) => each.y <= place && place < each.y + this.tall);
      if (offsetX < this.left || offsetY < AXIS || !row) return null;
      const span = row.lane.spans.find((s) => s[FINISHED] > tick - slack);
      return span && span[QUEUED] <= tick + slack ? { row, span } : null;
    }

    key(event) {
      const { from, to } = this.set.view, around = this.selected ? this.selected.span[STARTED] : (from + to) / 2;
      const way = WAYS[event.key], zoom = ZOOMS[event.key];
      if (!(way || zoom || event.key === "Escape") || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      if (way) this.go(...way);
      else if (zoom) this.set.press(zoom, around);
      else this.choose(null);
    }

    // To the next bar of the lane, or to the one of the next lane that runs meanwhile.
    go(across, along) {
      const old = this.selected, row = this.rows[old ? this.rows.indexOf(old.row) + across : 0];
      if (!row) return;
      const { spans } = row.lane, since = old ? old.span[STARTED] : 0;
      const near = spans.find((s) => s[FINISHED] > since) ?? spans.at(-1);
      const span = old && along ? spans[spans.indexOf(old.span) + along] : near;
      if (span) this.show({ row, span });
    }

    show(found) {
      const { from, to } = this.set.view, { row, span } = found, scroll = this.scroll;
      if (span[STARTED] > to || span[FINISHED] < from) this.set.pan(span[STARTED] - (from + to) / 2);
      const least = row.y + this.tall - this.height + 4, most = row.y - AXIS - 4;
      scroll.scrollTop = Math.min(Math.max(scroll.scrollTop, least), most);
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

    // Buttons zoom around the left edge: everything begins there.
    press(what, around = this.view.from) {
      const third = (this.view.to - this.view.from) / 3;
      ({
        in: () => this.zoom(0.5, around), out: () => this.zoom(2, around), all: () => this.look(0, this.end),
        left: () => this.pan(-third), right: () => this.pan(third),
      })[what]?.();
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
