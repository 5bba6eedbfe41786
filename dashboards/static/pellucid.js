// Draws the charts of a page: each .plot carries its series in data-chart. The
// same numbers stand in a table under it, so nothing is lost without this file.
(function () {
  "use strict";
  var light = ["#0f766e", "#b3261e", "#0b63ad", "#8a5300"];
  var dark = ["#2dd4bf", "#ff8f86", "#74b8f5", "#f3bf6a"];
  var media = window.matchMedia("(prefers-color-scheme: dark)");

  function draw(node) {
    var data = JSON.parse(node.dataset.chart);
    var colours = media.matches ? dark : light;
    var style = getComputedStyle(document.body);
    var ink = style.getPropertyValue("--soft").trim();
    var line = style.getPropertyValue("--line").trim();
    var axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    var series = [{ value: "{YYYY}-{MM}-{DD} {HH}:{mm}" }];
    data.series.forEach(function (s, i) {
      var colour = colours[i % colours.length];
      series.push({
        label: s.name, stroke: colour, width: 1.6, spanGaps: false,
        points: { show: data.times.length < 60, filter: alone, size: data.times.length === 1 ? 7 : 4, fill: colour },
        value: function (_, v) { return v == null ? "–" : (+v.toPrecision(4)).toString(); }
      });
    });
    node.textContent = "";
    // Dates as the rest of the page writes them, as much as the axis needs.
    var dates = function (_, splits, __, ___, step) {
      var layout = step >= 86400 ? "{YYYY}-{MM}-{DD}" : "{MM}-{DD} {HH}:{mm}";
      var write = uPlot.fmtDate(layout);
      return splits.map(function (t) { return write(uPlot.tzDate(new Date(t * 1e3), "Etc/UTC")); });
    };
    var plot = new uPlot({
      width: node.clientWidth, height: 220,
      padding: [null, 40, null, null], // half a date: the last one is not cut off
      tzDate: function (ts) { return uPlot.tzDate(new Date(ts * 1e3), "Etc/UTC"); },
      scales: { x: { range: function (_, lo, hi) { return span(data.times, lo, hi); } }, y: { range: function (_, lo, hi) { return data.zero ? [0, hi > 0 ? hi * 1.05 : 1] : pad(lo, hi); } } },
      axes: [Object.assign({ values: dates, space: 90 }, axis), Object.assign({ size: 56 }, axis)],
      series: series
    }, [data.times].concat(data.series.map(function (s) { return s.values; })), node);
    node._plot = plot;
  }

  // alone are the values between two gaps, where only points are drawn for want of room:
  // no line leads to them.
  function alone(plot, series, all) {
    var v = plot.data[series], out = [];
    if (all) { return null; }
    for (var i = 0; i < v.length; i++) {
      if (v[i] != null && v[i - 1] == null && v[i + 1] == null) { out.push(i); }
    }
    return out.length ? out : null;
  }

  // span is the axis of time. Of a single point there is no span: a day and a bit around it,
  // so that the point stands in the middle and its date is written.
  function span(times, lo, hi) {
    if (times.length === 1) { return [times[0] - 129600, times[0] + 129600]; }
    return lo == null ? [0, 1] : [lo, hi];
  }

  function pad(lo, hi) {
    if (lo == null) { return [0, 1]; }
    var d = (hi - lo) || Math.abs(hi) || 1;
    return [lo - d * 0.08, hi + d * 0.08];
  }

  function all() { document.querySelectorAll(".plot[data-chart]").forEach(draw); }
  document.addEventListener("DOMContentLoaded", all);
  media.addEventListener("change", all);
  var waiting;
  window.addEventListener("resize", function () {
    clearTimeout(waiting);
    waiting = setTimeout(function () {
      document.querySelectorAll(".plot").forEach(function (n) {
        if (n._plot) { n._plot.setSize({ width: n.clientWidth, height: 220 }); }
      });
    }, 100);
  });
}());
