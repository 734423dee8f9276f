// Makes a figure's view ready for plotly: colour roles ("@ink", "@blue", ...) become the colours of one theme, and
// traces with meta "hover" get their texts from the figure's shared list. Draw the result with
// Plotly.react(div, ready.data, ready.layout, config); call again with the other palette when the theme changes.

// `palette` is one side of reports.figures.theme.palettes(). Only values under keys that end in "color" are looked at,
// so no label or name can be mistaken for a role.
function paintFigure(value, palette, underColour = false) {
  if (Array.isArray(value)) return value.map((part) => paintFigure(part, palette, underColour));
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(
      Object.entries(value).map(([key, part]) => [key, paintFigure(part, palette, key.endsWith("color"))]),
    );
  }
  return underColour && Object.hasOwn(palette, value) ? palette[value] : value;
}

function readyFigure(spec, palette, hover = []) {
  const ready = paintFigure(spec, palette);
  for (const trace of ready.data) {
    if (trace.meta === "hover") {
      trace.hovertext = trace.customdata.map((item) => hover[item[1]]);
      trace.hoverinfo = "text";
    }
  }
  return ready;
}
