"""How the report looks, and the few lines of script that draw its figures."""

CSS = """
:root { --ink: #2b2f36; --soft: #69717c; --line: #e2e5e9; --accent: #2f5fb3; --good: #1f7a5c; --bad: #c8452f; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f7f8; color: var(--ink); font: 15px/1.5 system-ui, -apple-system, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 6px; }
h3 { font-size: 14px; font-weight: 600; margin: 18px 0 4px; color: var(--soft); }
p { margin: 6px 0; max-width: 78ch; }
.soft { color: var(--soft); }
.bad { color: var(--bad); overflow-wrap: anywhere; }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 18px 20px; margin-top: 16px; }
.score { display: flex; flex-wrap: wrap; gap: 10px 34px; align-items: baseline; margin: 14px 0 4px; }
.score b { font-size: 40px; font-weight: 650; line-height: 1.1; color: var(--good); }
.score small { display: block; font-size: 13px; color: var(--soft); }
.score .plain b { font-size: 22px; color: var(--ink); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 12px 0 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); white-space: nowrap; }
th { border-bottom: 1px solid var(--line); }
th, td { padding: 5px 14px 5px 0; vertical-align: top; }
td { border-bottom: 1px solid #f0f1f3; }
tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.text { overflow-wrap: anywhere; min-width: 16em; }
td.lines { white-space: pre-line; overflow-wrap: anywhere; min-width: 14em; }
td.mark { white-space: nowrap; }
td.what { min-width: 11em; }
tr.winner td { background: #eef4fb; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 0 20px; }
.two > div, .plot { min-width: 0; }
.plot { overflow: hidden; }
.overlays { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 14px 24px; }
figure { margin: 0; }
figcaption { font-size: 13px; color: var(--soft); margin-bottom: 3px; }
.triple { display: grid; grid-template-columns: repeat(3, 1fr); gap: 6px; }
.triple img { width: 100%; display: block; border-radius: 3px; image-rendering: pixelated; }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 4px 0 10px; }
pre { font: 12.5px/1.45 ui-monospace, Menlo, Consolas, monospace; overflow-x: auto; white-space: pre-wrap; }
summary { cursor: pointer; font-weight: 600; }
footer { color: var(--soft); font-size: 13px; margin-top: 20px; }
@media (max-width: 560px) {
  main { padding: 14px 10px 40px; }
  section { padding: 14px 12px; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 6px; }
  .score b { font-size: 34px; }
}
body.printing { background: #fff; font-size: 12px; }
.printing main { width: 690px; padding: 0; margin: 0; }
.printing section { border: 0; padding: 8px 0; margin-top: 8px; break-inside: avoid; }
.printing section.long { break-inside: auto; }
.printing table { font-size: 11px; }
.printing th { white-space: normal; }
.printing th, .printing td { padding-right: 9px; }
.printing .two, .printing .overlays { grid-template-columns: 1fr 1fr; }
.printing .plot, .printing figure, .printing tr { break-inside: avoid; }
.printing h2, .printing h3, .printing p { break-after: avoid; }
"""

SCRIPT = """
const isTouch = matchMedia("(pointer: coarse)").matches;
const plots = [...document.querySelectorAll(".plot")];
for (const plot of plots) {
  const figure = JSON.parse(plot.querySelector("script").textContent);
  if (isTouch) figure.layout.dragmode = false;  // a finger scrolls the page
  const options = {responsive: true, displaylogo: false, displayModeBar: false, doubleClick: "reset"};
  Plotly.newPlot(plot, figure.data, figure.layout, options);
}
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  document.body.classList.add("printing");  // paper's width, before the figures are drawn for it
  for (const plot of plots) Plotly.relayout(plot, {width: plot.clientWidth});
});
addEventListener("afterprint", () => {
  document.body.classList.remove("printing");
  for (const plot of plots) Plotly.relayout(plot, {width: null, autosize: true});
});
"""
