// Projection against rescaling: two ways to bring a row a = (a₁, a₂) of A into the ball |a₁| + |a₂| ≤ κ.
"use strict";

(() => {
  const { draw, add, stage, slider, digits, begin } = moving;
  const { place, left, right } = begin("projection");
  const plane = stage(left, {
    low: -2, high: 2, ticks: [-2, -1, 0, 1, 2], across: "a₁", up: "a₂", title: "The plane of a₁ and a₂",
  });
  const ball = plane.layer(), lines = plane.layer(), points = plane.layer(false);

  const first = slider(right, { name: "a₁", low: -2, high: 2, step: 0.01, value: 1.6 }, show);
  const second = slider(right, { name: "a₂", low: -2, high: 2, step: 0.01, value: 0.3 }, show);
  const kappa = slider(right, { name: "κ", low: 0.1, high: 1.5, step: 0.01, value: 0.9 }, show);
  const says = add(right, "p", { className: "says" });
  says.setAttribute("aria-live", "polite");

  const size = (a) => Math.abs(a[0]) + Math.abs(a[1]);

  function rescaled(a, k) {
    const share = size(a) > k ? k / size(a) : 1;
    return a.map((v) => v * share);
  }

  // The nearest point of the ball: the same amount t is taken from both absolute values, but none falls below 0.
  function projected(a, k) {
    if (size(a) <= k) return [...a];
    const [large, small] = a.map(Math.abs).sort((p, q) => q - p), both = (large + small - k) / 2;
    const t = both < small ? both : large - k;
    return a.map((v) => Math.sign(v) * Math.max(Math.abs(v) - t, 0));
  }

  function dot(a, colour, name, down) {
    const [cx, cy] = plane.at(...a), outwards = cx > 200 ? "end" : "start";
    draw(points, "circle", { cx, cy, r: 6, fill: colour });
    draw(points, "text", { x: cx, y: cy + down, style: `fill: ${colour}`, "text-anchor": outwards }, name);
  }

  function show() {
    for (const layer of [ball, lines, points]) layer.replaceChildren();
    const a = [Number(first.value), Number(second.value)], k = Number(kappa.value);
    const [p, r] = [projected(a, k), rescaled(a, k)];
    const corners = [[k, 0], [0, k], [-k, 0], [0, -k]];
    draw(ball, "polygon", { points: plane.path(corners), fill: "var(--moving-gray)", opacity: 0.2 });
    draw(lines, "polyline", { points: plane.path([a, r]), stroke: "var(--moving-red)", "stroke-dasharray": "5 4" });
    draw(lines, "polyline", { points: plane.path([[0, 0], r]), stroke: "var(--moving-red)", opacity: 0.4 });
    draw(lines, "polyline", { points: plane.path([a, p]), stroke: "var(--moving-blue)" });
    dot(r, "var(--moving-red)", "rescaled", -12);
    dot(p, "var(--moving-blue)", "projected", 22);
    dot(a, "var(--color-foreground-primary)", "a", -12);
    const far = (b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
    Object.assign(place.dataset, { a: JSON.stringify(a), projected: JSON.stringify(p), rescaled: JSON.stringify(r), kappa: k });
    const shown = (b) => `(${b.map(digits).join(", ")})`;
    says.innerHTML =
      size(a) <= k
        ? `|a₁| + |a₂| = <b>${digits(size(a))}</b> is at most κ: both leave the row as it is.`
        : `|a₁| + |a₂| = <b>${digits(size(a))}</b> is larger than κ. Projection gives <b>${shown(p)}</b>, at the distance ` +
          `<b>${digits(far(p))}</b>; rescaling gives <b>${shown(r)}</b>, at the distance <b>${digits(far(r))}</b>.` +
          (p.includes(0) ? " Projection has made an entry zero, which rescaling never does." : "");
  }

  function move(x, y) {
    for (const [input, value] of [[first, x], [second, y]]) {
      input.value = value;
      input.dispatchEvent(new Event("input"));
    }
  }

  plane.onPoint(move);
  plane.onKeys("The plane of a₁ and a₂: arrow keys move the row a", (dx, dy) =>
    move(...[[first, dx], [second, dy]].map(([input, d]) => (Number(input.value) + d).toFixed(2))),
  );
  show();
})();
