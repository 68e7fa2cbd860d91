"use strict";
// The page: a scenario's data is unpacked, and its figures drawn, when it is opened.
(() => {
  const LATENCIES = [["ttft_s", "time to first token"], ["tpot_s", "time per output token"],
    ["normalized_latency_s", "end to end per output token"]];
  const FIRST_CHOSEN = 4;
  const open = new Map();
  const kind = document.getElementById("kind");

  let plotly = null;
  function loadPlotly() {
    // Parsed after the tables are there, so that they do not wait for it.
    plotly ??= new Promise((resolve) => {
      const script = document.createElement("script");
      script.textContent = document.getElementById("plotly").textContent;
      document.head.append(script);
      resolve(window.Plotly);
    });
    return plotly;
  }

  async function unpack(scenario) {
    const text = document.querySelector(`script[data-of="${CSS.escape(scenario)}"]`).textContent;
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).json();
  }

  const element = (tag, props, ...children) => {
    const made = Object.assign(document.createElement(tag), props);
    made.append(...children);
    return made;
  };

  class Section {
    constructor(details, data) {
      this.data = data;
      this.body = details.querySelector(".body");
      this.view = { chosen: new Map(), window: 0, kind: kind.value, tail: false };
      this.figures = [];
      this.keys = [];
      this.visible = new IntersectionObserver((entries) => {
        for (const entry of entries) if (entry.isIntersecting) this.draw(this.figures.find((f) => f.div === entry.target));
      }, { rootMargin: "300px" });
      this.chooseFirst();
      this.build();
    }

    chooseFirst() {
      const { policy, baseline } = this.data.rows;
      const wanted = [baseline?.find((name) => name), "best-static", "hindsight", ...policy];
      for (const name of wanted) {
        const k = policy.indexOf(name);
        if (k >= 0 && this.view.chosen.size < FIRST_CHOSEN) this.choose(k);
      }
    }

    choose(k) {
      const used = new Set(this.view.chosen.values());
      let slot = 0;
      while (used.has(slot)) slot += 1;
      if (!this.view.chosen.has(k)) this.view.chosen.set(k, slot);
    }

    toggle(k) {
      if (!this.view.chosen.delete(k)) this.choose(k);
      this.mark();
      this.redraw();
    }

    build() {
      const { data, view } = this;
      this.table = element("div", { className: "scroll" });
      this.body.append(this.table);
      this.fillTable();
      this.buttons = data.rows.policy.map((name, k) => {
        const button = element("button", { type: "button", onclick: () => this.toggle(k) }, element("i", {}), name);
        return button;
      });
      this.body.append(element("h3", {}, "Policies drawn"), element("div", { className: "choice" }, ...this.buttons));
      this.add("Cost against attainment", "Up and left is better. Filled: meets the target. Dotted: the cheapest at each " +
        "attainment; lines join sizes of one kind. Click on a point to draw that policy.", (v) => Figures.front(data, v), { clickable: true });
      if (data.windows.length) {
        this.add("Over time", "Load (grey) in instances that the arriving tokens need, forecast (dotted), instances billed; then " +
          "requests waiting, mean time to first token and share of requests that missed the SLO, by arrival. First seed. " +
          "Drag to zoom, double click to see all.", (v) => Figures.timeLines(data, v), { key: true });
        if (data.windows.length > 1) this.body.lastChild.before(this.windowChoice());
      }
      const heading = element("label", {}, element("input", { type: "checkbox", onchange: (e) => {
        view.tail = e.target.checked; this.redraw(); } }), " tails on a logarithmic scale");
      this.heading("Latencies", "Of all requests of all seeds and windows that have one.");
      this.body.append(element("p", { className: "controls" }, heading));
      this.key();
      const three = element("div", { className: "three" });
      this.body.append(three);
      for (const [name, label] of LATENCIES) this.place(three, (v) => Figures.latency(data, v, name, label));
      if (data.windows.length) {
        this.add("Instances", "Billed (starting, ready and draining), policies by rank. First seed.", (v) => Figures.heatMap(data, v));
        this.heading("Forecasts", "Of the window that is under way, against the load that came, in instances; means over " +
          "the stretches drawn above. Policies with the same forecast are shown once.");
        this.body.append(this.qualities());
        this.place(this.body, (v) => Figures.prediction(data, v));
      }
      this.mark();
      this.body.append(element("details", {}, element("summary", {}, "Configuration"), element("pre", {}, data.config)));
    }

    fillTable() {
      const { rows } = this.data;
      const suffix = this.view.kind;
      const f = Figures.fixed;
      const ranged = (heading, name, factor, places, sign = false) => ({ heading, down: name === "slo_attainment",
        value: (k) => rows[name]?.[k], html: (k) => {
          const show = (x) => (sign && x > 0 ? "+" : "") + f(factor * x, places);
          const [low, high] = ["low", "high"].map((end) => rows[`${name}${suffix}_${end}`]?.[k]);
          const small = low === null || low === undefined ? "" : `<small>[${show(low)}, ${show(high)}]</small>`;
          return show(rows[name][k]) + small;
        } });
      const plain = (heading, name, factor, places, down = false) => ({ heading, down,
        value: (k) => rows[name]?.[k], html: (k) => f(factor * rows[name][k], places) });
      const columns = [
        plain("#", "rank", 1, 0),
        { heading: "Policy", text: true, value: (k) => rows.policy[k] },
        { heading: "Target met", down: true, value: (k) => Number(rows.meets_target[k]), html: (k) => (rows.meets_target[k] ? "yes" : "no") },
        ranged("SLO met, %", "slo_attainment", 100, 3),
        ranged("GPU-hours", "gpu_hours", 1, 2),
        ranged("GPU-hours to baseline, %", "gpu_hours_change", 100, 1, true),
        ranged("SLO met to baseline, points", "slo_attainment_difference", 100, 3, true),
        plain("Score", "score", 1, 2, true),
        ranged("TTFT P50, s", "ttft_p50_s", 1, 3), ranged("TTFT P99, s", "ttft_p99_s", 1, 2),
        ranged("TPOT P99, ms", "tpot_p99_s", 1000, 1), ranged("E2E per token P99, ms", "normalized_latency_p99_s", 1000, 1),
        plain("USD", "cost_usd", 1, 1), plain("kWh", "energy_kwh", 1, 1), plain("Times scaled", "scaling_actions", 1, 0),
      ].filter((column) => rows.policy.some((_, k) => (column.value(k) ?? null) !== null));
      // The name first: it stays in sight when the table is scrolled.
      columns.splice(0, 2, columns[1], columns[0]);
      const all = rows.policy.map((_, k) => k);
      const table = Tables.make(columns, all, (k) => (rows.policy[k] === rows.baseline?.[k] ? "baseline" : ""));
      this.table.replaceChildren(table);
    }

    qualities() {
      const f = (x) => Figures.fixed(x === null ? null : 100 * x, 1);
      const column = (heading, name) => ({ heading, value: (e) => e[name], html: (e) => f(e[name]) });
      const table = Tables.make([
        { heading: "Forecast of", text: true, value: (e) => e.policy },
        { heading: "Window", value: (e) => e.window, html: (e) => e.window + 1 },
        column("Mean absolute error, % of load", "error"), column("Bias, %", "bias"), column("Load not forecast, %", "short"),
      ], this.data.forecasts, () => "");
      return element("div", { className: "scroll" }, table);
    }

    windowChoice() {
      const select = element("select", { onchange: (e) => { this.view.window = Number(e.target.value); this.redraw(); } },
        ...this.data.windows.map((w, i) => element("option", { value: i }, `window ${w.number + 1}`)));
      return element("p", { className: "controls" }, element("label", {}, "Shown, here and below: ", select));
    }

    heading(title, about) {
      this.body.append(element("h3", {}, title), element("p", { className: "note" }, about));
    }

    // What the colours mean; filled by `mark`.
    key() {
      const line = element("p", { className: "key" });
      this.keys.push(line);
      this.body.append(line);
    }

    add(title, about, make, { clickable = false, key = false } = {}) {
      this.heading(title, about);
      if (key) this.key();
      this.place(this.body, make, clickable);
    }

    place(parent, make, clickable = false) {
      const div = element("div", { className: "plot" });
      parent.append(div);
      this.figures.push({ div, make, clickable, drawn: false });
      this.visible.observe(div);
    }

    async draw(figure) {
      const Plotly = await loadPlotly();
      const { traces, layout, height } = figure.make(this.view);
      // A finger scrolls the page; zooming is left to the buttons.
      layout.dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
      figure.div.style.height = `${height}px`;
      await Plotly.react(figure.div, traces, { ...layout, height, uirevision: this.view.window },
        { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
      if (figure.clickable && !figure.drawn) {
        figure.div.on("plotly_click", ({ points: [p] }) => p.customdata !== undefined && this.toggle(p.customdata));
      }
      figure.drawn = true;
    }

    redraw() {
      for (const figure of this.figures) if (figure.drawn) this.draw(figure);
    }

    mark() {
      this.buttons.forEach((button, k) => {
        const slot = this.view.chosen.get(k);
        button.setAttribute("aria-pressed", slot !== undefined);
        button.style.setProperty("--colour", `var(--c${(slot ?? 0) % 7})`);
      });
      for (const key of this.keys) {
        key.replaceChildren(...[...this.view.chosen].map(([k, slot]) => {
          const line = element("i", {});
          line.style.borderTop = `3px ${Figures.lineStyle(slot)} var(--c${slot % 7})`;
          return element("span", {}, line, this.data.rows.policy[k]);
        }));
      }
    }
  }

  async function show(details) {
    const scenario = details.dataset.scenario;
    if (open.has(scenario)) return;
    open.set(scenario, null);
    open.set(scenario, new Section(details, await unpack(scenario)));
    details.dataset.ready = "1";
  }

  document.querySelectorAll("table.sortable").forEach(Tables.sortable);
  document.querySelectorAll("details.scenario").forEach((details) => {
    details.addEventListener("toggle", () => details.open && show(details));
    if (details.open) show(details);
  });
  kind.addEventListener("change", () => {
    for (const section of open.values()) {
      if (!section) continue;
      section.view.kind = kind.value;
      section.fillTable();
      section.redraw();
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => open.forEach((section) => section?.redraw()));
  document.documentElement.dataset.ready = "1";
  // Once there is nothing else to do, so that the first figure does not wait for it either.
  (window.requestIdleCallback ?? setTimeout)(() => loadPlotly());
})();
