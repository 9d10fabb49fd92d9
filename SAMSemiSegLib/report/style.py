"""The look of the report: calm, readable, for screen (light and dark) and paper."""

STYLE = """
:root {
  --page: #fbfbf9; --panel: #ffffff; --ink: #1d1f22; --soft: #62676d; --line: #e4e4df;
  --accent: #2a6fb8; --warn-page: #fdf4e3; --warn-ink: #6d4a06;
  --c0: #2a78d6; --c1: #e0662f; --c2: #159a6c; --c3: #b8860b; --c4: #c2498d; --c5: #6a5acd;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171a; --panel: #1c1f23; --ink: #e8e8e5; --soft: #9aa0a6; --line: #31353a;
    --accent: #7fb4ee; --warn-page: #33290f; --warn-ink: #f0d492;
    --c0: #5b9df0; --c1: #f08a5a; --c2: #3cc48f; --c3: #dcb13c; --c4: #e07db4; --c5: #9d90f0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 1040px; margin: 0 auto; padding: 48px 28px 72px; }
header p.kind { margin: 0; color: var(--soft); font-size: 14px; letter-spacing: 0.02em; }
h1 { font-size: 34px; line-height: 1.2; margin: 2px 0 14px; font-weight: 650;
  overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 56px 0 6px; font-weight: 620; }
h3 { font-size: 15px; margin: 0 0 6px; font-weight: 600; }
p { margin: 0 0 12px; max-width: 68ch; }
p.lead { font-size: 18px; }
p.hint, figcaption { color: var(--soft); font-size: 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 26px 0 6px; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px 12px; }
.tile b { display: block; font-size: 24px; white-space: nowrap; font-weight: 620; line-height: 1.15;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13.5px; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 14px 0; overflow-x: auto; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 14px; }
.charts .panel { margin: 0; }
.charts.above { margin-top: 14px; }
table { border-collapse: collapse; width: 100%; font-size: 15px;
  font-variant-numeric: tabular-nums; }
th { text-align: right; color: var(--soft); font-weight: 500; font-size: 13.5px;
  padding: 4px 12px 8px; border-bottom: 1px solid var(--line); white-space: nowrap; }
td { text-align: right; padding: 8px 12px; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td small { display: block; color: var(--soft); font-size: 12.5px; line-height: 1.3; }
td.best { font-weight: 650; }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.bar { display: inline-block; height: 9px; border-radius: 4px; background: var(--c0);
  vertical-align: middle; min-width: 2px; }
td.track { width: 50%; text-align: left; }
ul.notes { list-style: none; margin: 14px 0 0; padding: 0; font-size: 15px; }
ul.notes li { padding: 8px 14px; border-left: 3px solid var(--line); margin: 6px 0;
  overflow-wrap: anywhere; }
ul.notes li.warning { background: var(--warn-page); color: var(--warn-ink);
  border-color: var(--c3); border-radius: 0 8px 8px 0; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 16px;
  margin-top: 16px; }
figure { margin: 0; }
.gallery figure { background: var(--panel); border: 1px solid var(--line); border-radius: 10px;
  overflow: hidden; break-inside: avoid; }
.gallery .frame { background: #000; aspect-ratio: 3.4; display: flex; align-items: center; }
.gallery img { display: block; width: 100%; height: 100%; object-fit: contain; }
.gallery figcaption { display: flex; justify-content: space-between; gap: 12px; padding: 8px 14px;
  color: var(--ink); overflow-wrap: anywhere; }
.gallery figcaption b { font-weight: 600; font-variant-numeric: tabular-nums; }
details { margin: 14px 0; }
summary { cursor: pointer; color: var(--accent); font-size: 15px; }
svg { display: block; max-width: 100%; height: auto; }
svg text { fill: var(--ink); font-size: 12px; font-family: inherit;
  font-variant-numeric: tabular-nums; }
svg text.tick, svg text.key { fill: var(--soft); font-size: 11.5px; }
svg text.name, svg text.value { font-size: 13px; }
.grid { stroke: var(--line); fill: none; } .axis { stroke: var(--soft); fill: none; }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.raw { fill: none; stroke: var(--c); stroke-width: 1; opacity: 0.28; }
.dot { fill: var(--c); fill-opacity: 0.55; stroke: var(--c); stroke-width: 0.8; }
.fill { fill: var(--c); } .mean { stroke: var(--ink); stroke-width: 2; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); }
.c3 { --c: var(--c3); } .c4 { --c: var(--c4); } .c5 { --c: var(--c5); }
footer { margin-top: 60px; color: var(--soft); font-size: 13.5px; }
@media (max-width: 520px) {
  main { padding: 28px 16px; }
  .charts, .gallery { grid-template-columns: 1fr; }
}
@media print {
  :root { --page: #fff; --panel: #fff; --ink: #000; --soft: #555; --line: #ccc; }
  main { max-width: none; padding: 0; } body { font-size: 11pt; }
  .panel, .tile, figure, tr { break-inside: avoid; } h2 { break-after: avoid; }
}
"""
