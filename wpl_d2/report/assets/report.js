// Draws the curves that the page holds as JSON, in the page's colors, with a legend that the keyboard reaches.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const COLORS = 8, SHOWN_AT_FIRST = 8, DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3]];
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const color = (line, index) => style(`--c${(line.group ?? index) % COLORS}`);
  const dash = (index) => DASHES[Math.floor(index / COLORS) % DASHES.length];
  const drawn = [];

  function paint(chart, lines) {
    chart.data.datasets.forEach((data, index) => {
      data.borderColor = data.backgroundColor = color(lines[index], index);
    });
    for (const axis of Object.values(chart.options.scales)) {
      axis.grid.color = style("--line");
      axis.ticks.color = axis.title.color = style("--soft");
    }
    chart.update();
  }

  function legend(figure, chart, lines) {
    const list = figure.querySelector(".legend");
    lines.forEach((line, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", chart.isDatasetVisible(index));
      button.innerHTML = '<svg viewBox="0 0 20 4" aria-hidden="true"><path d="M0 2h20" stroke-width="3"/></svg>';
      const stroke = button.querySelector("path");
      stroke.style.stroke = `var(--c${(line.group ?? index) % COLORS})`;
      stroke.setAttribute("stroke-dasharray", dash(line.group === undefined ? index : 0).join(" "));
      button.append(line.name);
      button.addEventListener("click", () => {
        const show = !chart.isDatasetVisible(index);
        chart.setDatasetVisibility(index, show);
        button.setAttribute("aria-pressed", show);
        chart.update("none");
      });
      list.append(button);
    });
  }

  function draw(figure) {
    const { unit, series: lines } = charts[figure.dataset.chart];
    const axis = (text) => ({ type: "linear", grid: {}, ticks: { maxTicksLimit: 6 }, title: { display: !!text, text } });
    const last = Math.max(...lines.flatMap((line) => line.points.map(([step]) => step)));
    const chart = new Chart(figure.querySelector("canvas"), {
      type: "line",
      data: {
        datasets: lines.map((line, index) => ({
          label: line.name,
          data: line.points.map(([x, y]) => ({ x, y })),
          borderWidth: 2,
          borderColor: color(line, index),
          backgroundColor: color(line, index),
          borderDash: dash(line.group === undefined ? index : 0),
          pointRadius: line.points.length > 30 ? 0 : 3,
          hidden: lines.length > SHOWN_AT_FIRST + 2 && index >= SHOWN_AT_FIRST,
        })),
      },
      options: {
        animation: false,
        parsing: false,
        clip: false,
        maintainAspectRatio: false,
        interaction: { mode: "nearest", axis: "x", intersect: false },
        scales: { x: { ...axis("step"), min: 0, max: last }, y: axis(unit) },
        plugins: { legend: { display: false }, colors: { enabled: false } },
      },
    });
    paint(chart, lines);
    legend(figure, chart, lines);
    drawn.push([chart, lines]);
  }

  document.querySelectorAll("[data-chart]").forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    drawn.forEach(([chart, lines]) => paint(chart, lines));
  });
})();
