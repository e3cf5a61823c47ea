// Two neurons: the plane of x = (x₁, x₂), where the map g(x) = φ(A x + z) leads, its regions and its equilibria.
"use strict";

(() => {
  const { draw, add, stage, slider, select, button, digits, begin } = moving;
  const PHI = { relu: (p) => Math.max(p, 0), tanh: Math.tanh, identity: (p) => p };
  const EXAMPLES = {
    "a spiral": [[0.5, -0.6], [0.7, 0.3], [1, 1]],
    "two roads": [[0.2, 0.5], [0.5, 0.2], [0.5, 1]],
    "slow: κ = 0.99": [[0, 0.99], [0.99, 0], [0.02, 0.01]],
    "three equilibria": [[0, -2], [-2, 0], [1, 1]],
    "none": [[1.5, 0], [0, 0.5], [1, 1]],
  };
  const STEPS = 400; // of a trajectory
  const FAR = 1e6;
  const { place, left, right } = begin("two_neurons");
  const plane = stage(left, {
    low: -1, high: 4, ticks: [-1, 0, 1, 2, 3, 4], across: "x₁", up: "x₂", title: "The plane of x₁ and x₂",
  });
  const [regions, field, ways, marks] = [plane.layer(), plane.layer(), plane.layer(), plane.layer()];
  regions.setAttribute("opacity", 0.16); // of the layer: where squares overlap, they would be darker

  const example = select(right, "example", Object.keys(EXAMPLES), () => take(EXAMPLES[example.value]));
  const kind = select(right, "φ", Object.keys(PHI), restart);
  const entry = {};
  for (const [name, names] of [["A", ["A₁₁", "A₁₂", "A₂₁", "A₂₂"]], ["z", ["z₁", "z₂"]]]) {
    const group = add(right, "fieldset");
    add(group, "legend", { textContent: name });
    for (const each of names) {
      const label = add(group, "label", { textContent: each });
      entry[each] = add(label, "input", { type: "number", step: 0.1, id: `two_neurons-${each}` });
      entry[each].addEventListener("input", restart);
    }
  }
  const kappa = slider(right, { name: "κ", low: 0.1, high: 3, step: 0.01, value: 3 }, restart);
  const buttons = add(right, "div", { className: "buttons" });
  button(buttons, "Start at the cross", () => begun([...cross]));
  button(buttons, "Clear", restart);
  const says = add(right, "p", { className: "says" });
  says.setAttribute("aria-live", "polite");

  let cross = [3, 3], starts = [];

  const value = (name) => Number(entry[name].value) || 0;
  const raw = () => [[value("A₁₁"), value("A₁₂")], [value("A₂₁"), value("A₂₂")]];
  const norm = (A) => Math.max(...A.map(([p, q]) => Math.abs(p) + Math.abs(q)));
  // What ImplicitFunctionInf makes of A: all of it is scaled to ‖A‖∞ = κ where it is larger.
  function kept() {
    const A = raw(), share = Math.min(1, kappa.value / norm(A) || 1);
    return A.map((row) => row.map((v) => v * share));
  }
  const z = () => [value("z₁"), value("z₂")];
  const before = (A, x) => z().map((zi, i) => A[i][0] * x[0] + A[i][1] * x[1] + zi);
  const g = (A, x) => before(A, x).map(PHI[kind.value]);

  // All equilibria for relu or identity: one linear system for each set of units that are active.
  function equilibria(A) {
    const found = [], sets = kind.value === "relu" ? [[0, 0], [0, 1], [1, 0], [1, 1]] : [[1, 1]];
    for (const [s, t] of sets) {
      const [[a, b], [c, d]] = [[1 - s * A[0][0], -s * A[0][1]], [-t * A[1][0], 1 - t * A[1][1]]];
      const [u, v] = [s * z()[0], t * z()[1]], det = a * d - b * c;
      if (Math.abs(det) < 1e-12) continue;
      const x = [(d * u - b * v) / det, (a * v - c * u) / det], p = before(A, x);
      if (kind.value === "identity" || (p[0] > 0 === (s === 1) && p[1] > 0 === (t === 1))) found.push(x);
    }
    return found;
  }

  function trajectory(A, x) {
    const points = [x];
    while (points.length <= STEPS && Math.abs(x[0]) + Math.abs(x[1]) < FAR) {
      const next = g(A, x), step = Math.max(Math.abs(next[0] - x[0]), Math.abs(next[1] - x[1]));
      points.push(next);
      if (step < 1e-9) break;
      x = next;
    }
    return points;
  }

  function take([first, second, constant]) {
    const values = [...first, ...second, ...constant];
    Object.values(entry).forEach((input, i) => (input.value = values[i]));
    restart();
  }

  function restart() {
    starts = [];
    show();
  }

  function begun(x) {
    cross = x;
    starts = [...starts.slice(-9), x];
    show();
  }

  function arrow(x, y, length) {
    const [x1, y1] = plane.at(...x), [x2, y2] = plane.at(...y), size = Math.hypot(x2 - x1, y2 - y1);
    if (size < 1) return draw(field, "circle", { cx: x1, cy: y1, r: 1.5, fill: "var(--moving-gray)" });
    const [u, v] = [(x2 - x1) / size, (y2 - y1) / size], long = Math.min(length, size);
    const [tx, ty] = [x1 + long * u, y1 + long * v], head = `${tx - 4 * u + 2.5 * v},${ty - 4 * v - 2.5 * u}`;
    const points = `${x1},${y1} ${tx},${ty} ${head}`;
    return draw(field, "polyline", { points, stroke: "var(--moving-gray)", "stroke-width": 1 });
  }

  // The regions of the active sets are bounded by the lines (A x + z)ᵢ = 0; small squares have the colour of theirs.
  function showRegions(A) {
    const { low, high } = plane, size = (high - low) / 50;
    const [width] = [plane.at(size, 0)[0] - plane.at(0, 0)[0]];
    const colours = { "1,0": "var(--moving-blue)", "0,1": "var(--moving-green)", "1,1": "var(--moving-red)" };
    for (let i = 0; i < 50; i++) {
      for (let j = 0; j < 50; j++) {
        const corner = [low + i * size, low + (j + 1) * size];
        const set = before(A, [corner[0] + size / 2, corner[1] - size / 2]).map((p) => (p > 0 ? 1 : 0)).join();
        if (!(set in colours)) continue;
        const [x, y] = plane.at(...corner);
        draw(regions, "rect", { x, y, width: width + 0.3, height: width + 0.3, fill: colours[set] });
      }
    }
  }

  function show() {
    for (const layer of [regions, field, ways, marks]) layer.replaceChildren();
    const A = kept(), { low, high } = plane;
    if (kind.value === "relu") showRegions(A);
    for (let x = low; x <= high + 1e-9; x += 0.5) {
      for (let y = low; y <= high + 1e-9; y += 0.5) arrow([x, y], g(A, [x, y]), 14);
    }
    const ends = starts.map((x) => {
      const points = trajectory(A, x);
      draw(ways, "polyline", { points: plane.path(points), stroke: "var(--moving-red)", "stroke-width": 1.5 });
      const [cx, cy] = plane.at(...x);
      draw(ways, "circle", { cx, cy, r: 3.5, stroke: "var(--moving-red)" });
      return points;
    });
    const all = kind.value === "tanh" ? [] : equilibria(A);
    for (const x of all) {
      const [cx, cy] = plane.at(...x);
      draw(marks, "circle", { cx, cy, r: 6, fill: "var(--color-foreground-primary)" });
    }
    const [cx, cy] = plane.at(...cross), d = `M${cx - 7},${cy}h14M${cx},${cy - 7}v14`;
    draw(marks, "path", { d, stroke: "var(--color-foreground-primary)", "stroke-width": 1.5 });
    tell(A, all, ends.at(-1));
  }

  function tell(A, all, last) {
    const size = norm(A), scaled = norm(raw()) > Number(kappa.value);
    let sentence = `‖A‖∞ = <b>${digits(size)}</b>${scaled ? ", after A was scaled to κ" : ""}. `;
    sentence += size < 1 ? "The map contracts: there is one equilibrium. " : "The norm alone does not tell how many equilibria there are. ";
    if (kind.value !== "tanh") {
      const list = all.map((x) => `(${x.map(digits).join(", ")})`).join(" and ");
      sentence += all.length ? `By linear algebra: <b>${list}</b>. ` : "By linear algebra: <b>there is none</b>. ";
    }
    const [x, steps] = last ? [last.at(-1), last.length - 1] : [null, 0];
    if (last) {
      const settled = steps < STEPS && Math.abs(x[0]) + Math.abs(x[1]) < FAR;
      sentence += settled
        ? `From (${last[0].map(digits).join(", ")}), ${steps} steps lead to <b>(${x.map(digits).join(", ")})</b>.`
        : `From (${last[0].map(digits).join(", ")}), ${steps} steps do not come to rest.`;
    }
    Object.assign(place.dataset, { equilibria: JSON.stringify(all), x: JSON.stringify(x), steps, norm: size });
    says.innerHTML = sentence;
  }

  plane.svg.addEventListener("pointerdown", (event) => event.isPrimary && plane.svg.focus({ preventScroll: true }));
  plane.onPoint((x, y) => begun([x, y]));
  plane.onKeys(
    "The plane of x₁ and x₂: arrow keys move the cross, Enter starts a trajectory there",
    (dx, dy) => {
      cross = [cross[0] + dx, cross[1] + dy].map((v) => Math.round(10 * Math.min(4, Math.max(-1, v))) / 10);
      show();
    },
    () => begun([...cross]),
  );
  take(EXAMPLES["a spiral"]);
  begun([3, 3]);
})();
