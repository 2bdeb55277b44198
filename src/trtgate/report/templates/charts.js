const dark = matchMedia("(prefers-color-scheme: dark)");
const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function layout(title, more) {
  return {title: {text: title, font: {size: 14}}, margin: {l: 60, r: 15, t: 35, b: 45}, height: 260, showlegend: false,
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: {color: color("--text")},
    xaxis: {gridcolor: color("--line"), zeroline: false, automargin: true}, yaxis: {gridcolor: color("--line"), title: {text: "µs"}}, ...more};
}
function ready() {
  if (window.Plotly) return;
  const code = document.createElement("script");  // only now: reading it takes longer than all tables
  code.textContent = document.getElementById("plotly").textContent;
  document.head.append(code);
}
function charts(place, wanted) {
  if (!wanted.length) return;
  ready();
  const drawn = wanted.map(({label}) => {
    const one = document.createElement("div");
    one.className = "chart";
    one.setAttribute("role", "img");
    one.setAttribute("aria-label", label);
    return one;
  });
  place.append(...drawn);  // all of them, then each has its width
  wanted.forEach(({traces, described}, n) =>
    Plotly.newPlot(drawn[n], traces, described, {displaylogo: false, responsive: true, displayModeBar: false}));
}
function overRuns(series, title) {
  const shapes = series.changes.map(x => (
    {type: "line", x0: x - .5, x1: x - .5, yref: "paper", y0: 0, y1: 1, line: {color: color("--bad"), dash: "dot"}}));
  const xaxis = {gridcolor: color("--line"), zeroline: false, title: {text: "run"}, dtick: Math.ceil(series.us.length / 8)};
  const points = {type: "scatter", mode: "lines+markers", x: series.us.map((_, n) => n), y: series.us,
    text: series.runs, hoverinfo: "y+text", line: {color: color("--news")}};
  return {label: "Latency in saved runs", traces: [points], described: layout(title, {shapes, xaxis})};
}
