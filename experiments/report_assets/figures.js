"use strict";
// The figures of a scenario: each function makes traces and layout for Plotly from the scenario's data and a
// view {chosen: Map from row to colour number, window, kind, tail}.
const Figures = (() => {
  const DASHES = ["solid", "dash", "dot"];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (slot) => css(`--c${slot % 7}`);
  const dash = (slot) => DASHES[Math.floor(slot / 7) % 3];
  const lineStyle = (slot) => ({ solid: "solid", dash: "dashed", dot: "dotted" })[dash(slot)];
  const fixed = (value, places) => (value === null || value === undefined ? "–" : value.toFixed(places));

  const axis = (more) => ({
    gridcolor: css("--grid"), linecolor: css("--line"), zerolinecolor: css("--grid"), automargin: true, ...more,
  });
  const layout = (more) => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", showlegend: false,
    font: { family: "system-ui, sans-serif", size: 12, color: css("--ink") },
    hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--ink") }, namelength: -1 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--line"), activecolor: css("--ink") },
    margin: { l: 55, r: 15, t: 10, b: 42 }, ...more,
  });

  // Missed requests in % on a logarithmic axis that is labelled by attainment: 99 and 99.9 are far apart.
  const LEAST = 0.001;
  const missed = (attainment) => Math.max(100 * (1 - attainment), LEAST);

  function front(data, view) {
    const rows = data.rows;
    const name = (k, figure, end) => rows[`${figure}${view.kind}_${end}`]?.[k];
    const point = (k) => ({ x: rows.gpu_hours[k], y: missed(rows.slo_attainment[k]) });
    const arms = (list) => {
      const error = { x: [[], []], y: [[], []] };
      for (const k of list) {
        const { x, y } = point(k);
        const [low, high] = [name(k, "gpu_hours", "low"), name(k, "gpu_hours", "high")];
        error.x[0].push(x - (low ?? x)); error.x[1].push((high ?? x) - x);
        const [worst, best] = [name(k, "slo_attainment", "low"), name(k, "slo_attainment", "high")];
        error.y[0].push(Math.max(y - missed(best ?? 1 - y / 100), 0));
        error.y[1].push(Math.max(missed(worst ?? 1 - y / 100) - y, 0));
      }
      return error;
    };
    const trace = (list, shade, size, label) => {
      const error = arms(list);
      const bar = (pair, width) => ({ type: "data", symmetric: false, array: pair[1], arrayminus: pair[0],
        color: shade, thickness: 1, width });
      return {
        type: "scatter", mode: label ? "markers+text" : "markers", customdata: list, cliponaxis: false,
        x: list.map((k) => point(k).x), y: list.map((k) => point(k).y),
        error_x: bar(error.x, 0), error_y: bar(error.y, 0),
        marker: { color: shade, size, symbol: list.map((k) => (rows.meets_target[k] ? "circle" : "circle-open")),
          line: { width: 1.5 } },
        text: list.map((k) => (label ? rows.policy[k] : "")), textposition: "top center",
        textfont: { color: shade, size: 12 },
        hovertext: list.map((k) => hover(k)), hoverinfo: "text",
      };
    };
    const range = (k, figure, factor, places) => {
      const [low, high] = [name(k, figure, "low"), name(k, figure, "high")];
      return `${fixed(factor * rows[figure][k], places)}` +
        (low === null || low === undefined ? "" : ` [${fixed(factor * low, places)}, ${fixed(factor * high, places)}]`);
    };
    const hover = (k) => `<b>${rows.policy[k]}</b>, rank ${rows.rank[k]}<br>${range(k, "gpu_hours", 1, 1)} GPU-hours` +
      `<br>${range(k, "slo_attainment", 100, 3)} % met the SLO`;
    const all = rows.policy.map((_, k) => k);
    const traces = [];
    const line = (list, style) => traces.push({ type: "scatter", mode: "lines", hoverinfo: "skip",
      x: list.map((k) => point(k).x), y: list.map((k) => point(k).y), line: { color: css("--grey"), width: 1, dash: style } });
    for (const sweep of data.sweeps) line(sweep, "solid");
    const best = all.slice().sort((a, b) => point(a).x - point(b).x);
    let least = Infinity;
    line(best.filter((k) => point(k).y < least && ((least = point(k).y), true)), "dot");
    traces.push(trace(all.filter((k) => !view.chosen.has(k)), css("--grey"), 8, false));
    for (const [k, slot] of view.chosen) traces.push(trace([k], colour(slot), 11, true));
    const target = missed(rows.target[0]);
    const ys = all.map((k) => point(k).y).concat(target);
    const [low, high] = [Math.log10(Math.min(...ys)) - 0.15, Math.log10(Math.max(...ys)) + 0.1];
    const ticks = [99.999, 99.995, 99.99, 99.95, 99.9, 99.8, 99.5, 99, 98, 95, 90, 80, 50, 0];
    return { traces, height: 440, layout: layout({
      xaxis: axis({ title: { text: "GPU-hours" } }),
      yaxis: axis({ type: "log", range: [high, low - 0.1], title: { text: "requests that met the SLO, %" },
        tickvals: ticks.map((t) => Math.max(100 - t, LEAST)), ticktext: ticks.map(String) }),
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: target, y1: target,
        line: { color: css("--c1"), width: 1, dash: "dash" } }],
      annotations: [{ xref: "paper", x: 1, xanchor: "right", y: Math.log10(target), yanchor: "bottom", showarrow: false,
        text: `target ${fixed(100 * rows.target[0], 2).replace(/\.?0+$/, "")} %`, font: { color: css("--c1"), size: 11 } }],
      margin: { l: 65, r: 25, t: 15, b: 45 },
    }) };
  }

  const clock = (window, n) => {
    const start = Date.UTC(2001, 0, 1) + 1000 * window.clock_s;
    return Array.from({ length: n }, (_, i) => start + (1000 * window.seconds * i) / n);
  };
  const timeAxis = (more) => axis({ type: "date", tickformat: "%H:%M", hoverformat: "%H:%M", ...more });

  function timeLines(data, view) {
    const window = data.windows[view.window];
    const x = clock(window, window.load.length);
    const traces = [{ type: "scatter", mode: "lines", x, y: window.load, name: "load", fill: "tozeroy",
      line: { width: 0, shape: "hv" }, fillcolor: css("--band"), yaxis: "y", hovertemplate: "load %{y:.1f}<extra></extra>" }];
    const panels = [["instances", "y"], ["waiting", "y2"], ["ttft_ms", "y3"], ["missed", "y4"]];
    const shown = new Set();
    for (const [k, slot] of view.chosen) {
      const forecast = window.forecast[k];
      if (forecast !== null && !shown.has(forecast)) {
        shown.add(forecast);
        traces.push({ type: "scatter", mode: "lines", x, y: data.forecasts[forecast].forecast, yaxis: "y",
          name: `forecast of ${data.rows.policy[k]}`, line: { color: css("--ink"), width: 1, dash: "dot", shape: "hv" },
          hovertemplate: `forecast of ${data.rows.policy[k]} %{y:.1f}<extra></extra>` });
      }
      const lines = window.policies[k];
      if (!lines) continue;
      for (const [name, yaxis] of panels) {
        traces.push({ type: "scatter", mode: "lines", x, y: lines[name], yaxis, name: data.rows.policy[k],
          line: { color: colour(slot), dash: dash(slot), width: 1.5, shape: "hv" } });
      }
    }
    const title = (text) => ({ title: { text, font: { size: 12 } }, rangemode: "tozero" });
    return { traces, height: 640, layout: layout({
      hovermode: "x", margin: { l: 62, r: 15, t: 10, b: 35 },
      xaxis: timeAxis({ anchor: "y4" }),
      yaxis: axis({ domain: [0.56, 1], ...title("instances, load") }),
      yaxis2: axis({ domain: [0.385, 0.525], ...title("queue") }),
      yaxis3: axis({ domain: [0.195, 0.35], type: "log", title: { text: "TTFT, ms", font: { size: 12 } }, dtick: "D2", tickfont: { size: 10 } }),
      yaxis4: axis({ domain: [0, 0.16], ...title("missed, %") }),
    }) };
  }

  function latency(data, view, name, label) {
    const traces = [];
    for (const [k, slot] of view.chosen) {
      const points = data.latencies[name][k].map((v, i) => [v, data.shares[i]]).filter(([v]) => v !== null && v > 0);
      traces.push({ type: "scatter", mode: "lines", x: points.map(([v]) => v),
        y: points.map(([, share]) => (view.tail ? 100 - share : share)), name: data.rows.policy[k],
        line: { color: colour(slot), dash: dash(slot), width: 1.8 },
        hovertemplate: `${data.rows.policy[k]}: ${view.tail ? "%{y:.3g} % take longer than" : "P%{y:.4g} is"} %{x:.4g} ms<extra></extra>` });
    }
    return { traces, height: 300, layout: layout({
      xaxis: axis({ type: "log", title: { text: `${label}, ms` }, nticks: 5, tickangle: 0 }),
      yaxis: view.tail ? axis({ type: "log", title: { text: "take longer, %" }, dtick: 1 })
        : axis({ title: { text: "requests, %" }, range: [0, 101] }),
    }) };
  }

  function heatMap(data, view) {
    const window = data.windows[view.window];
    const rows = data.rows.policy.map((policy, k) => [policy, window.policies[k]]).filter(([, lines]) => lines);
    rows.reverse();
    return { height: 80 + 17 * rows.length, traces: [{ type: "heatmap", x: clock(window, window.load.length),
      y: rows.map(([policy]) => policy), z: rows.map(([, lines]) => lines.instances), colorscale: "Cividis",
      colorbar: { title: { text: "instances", side: "right" }, thickness: 12, outlinewidth: 0 },
      hovertemplate: "%{y}<br>%{x|%H:%M}: %{z} instances<extra></extra>" }],
      layout: layout({ xaxis: timeAxis({}), yaxis: axis({ tickfont: { size: 11 }, dtick: 1 }), margin: { l: 90, r: 10, t: 10, b: 35 } }) };
  }

  function prediction(data, view) {
    const number = data.windows[view.window].number;
    const entries = data.forecasts.filter((entry) => entry.window === number);
    const top = Math.max(...entries.flatMap((entry) => entry.load.concat(entry.forecast)), 1);
    const traces = [{ type: "scatter", mode: "lines", x: [0, top], y: [0, top], hoverinfo: "skip",
      line: { color: css("--grey"), width: 1, dash: "dot" } }];
    entries.forEach((entry, i) => traces.push({ type: "scatter", mode: "markers", x: entry.load, y: entry.forecast,
      marker: { color: colour(i), size: 5, opacity: 0.6 }, name: `forecast of ${entry.policy}`,
      hovertemplate: `forecast of ${entry.policy}: %{y:.2f}, load %{x:.2f}<extra></extra>` }));
    return { traces, height: 360, layout: layout({
      xaxis: axis({ title: { text: "load, instances" }, rangemode: "tozero" }),
      yaxis: axis({ title: { text: "forecast, instances" }, rangemode: "tozero" }),
    }) };
  }

  return { front, timeLines, latency, heatMap, prediction, fixed, lineStyle };
})();
