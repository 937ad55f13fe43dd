"""Style of the page: light and dark, wide and narrow, without any file besides."""

STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --back: #ffffff; --soft: #5b6168;
  --line: #d9dce0; --panel: #f5f6f8; --grid: #dddddd; --bar: #bcdcf0; --note: #fff3d6;
  --edge: #c98a00; --link: #005a9c; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e6e9; --back: #16181b; --soft: #a2a8b0; --line: #363a40; --panel: #1f2226;
    --grid: #3a3e44; --bar: #1d4a66; --note: #3a2f14; --edge: #e0a92e; --link: #7cc0f5; }
}
* { box-sizing: border-box; }
body { margin: 0; color: var(--text); background: var(--back);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
h4 { font-size: .95rem; margin: 1rem 0 .35rem; font-weight: 600; overflow-wrap: anywhere; }
.small { color: var(--soft); font-size: .875rem; }
.path, code { overflow-wrap: anywhere; }
.state { font-size: 1.1rem; margin: 1rem 0; }
.state strong { font-size: 1.8rem; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .85rem; }
pre { overflow-x: auto; background: var(--panel); padding: .75rem; border-radius: 6px; }
.note { background: var(--note); border-left: 4px solid var(--edge); padding: .5rem .75rem;
  margin: .75rem 0; border-radius: 0 6px 6px 0; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
  gap: .25rem 1.5rem; margin: .5rem 0; background: var(--panel); padding: .75rem 1rem;
  border-radius: 6px; }
dl > div { display: flex; gap: .6rem; min-width: 0; }
dt { color: var(--soft); flex: 0 0 7.5rem; }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { text-align: left; color: var(--soft); font-size: .875rem; padding-bottom: .25rem;
  white-space: nowrap; }
th, td { padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
thead th { font-weight: 600; vertical-align: bottom; }
th:first-child { text-align: left; font-weight: 600; min-width: 7.5rem; max-width: 18rem;
  overflow-wrap: anywhere; }
td.bar { padding-left: .75rem; min-width: 6rem;
  background: linear-gradient(to right, var(--bar) var(--share), transparent var(--share)); }
td { min-width: 4.5rem; max-width: 22rem; overflow-wrap: break-word; }
.curves { display: grid; grid-template-columns: 2fr 1fr 1fr; gap: .5rem; align-items: start; }
.curve img { display: block; width: 100%; height: auto; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .85rem; color: var(--soft); }
.row { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 15rem)); gap: .6rem; }
.row img { display: block; width: 100%; height: auto; border-radius: 4px; }
.pixels { image-rendering: pixelated; }
.legend { list-style: none; padding: 0; margin: .5rem 0; display: flex; flex-wrap: wrap;
  gap: .25rem 1.1rem; font-size: .9rem; }
.legend li { overflow-wrap: anywhere; }
.swatch { display: inline-block; width: .9em; height: .9em; margin-right: .4em; border-radius: 2px;
  vertical-align: -.08em; border: 1px solid var(--soft); }
.ramp { width: 6rem; height: .8rem; vertical-align: -.08rem; border-radius: 2px; }
summary { cursor: pointer; font-weight: 600; margin: .5rem 0; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
@media (max-width: 44rem) {
  .curves { grid-template-columns: 1fr 1fr; }
  .curves figure:first-child { grid-column: 1 / -1; }
  .row { grid-template-columns: repeat(2, 1fr); }
}
@media print { details > * { display: block; } .wide { overflow: visible; } }
"""
