// A cobweb: Picard's iteration x ← φ(a x + z) for one number, with the certificate of each step.
"use strict";

(() => {
  const { draw, add, stage, slider, select, button, digits, begin } = moving;
  // Each φ with its Lipschitz constant, as the table of activations has them.
  const PHI = {
    relu: [(p) => Math.max(p, 0), 1],
    tanh: [Math.tanh, 1],
    sigmoid: [(p) => 1 / (1 + Math.exp(-p)), 0.25],
    softplus: [(p) => Math.max(p, 0) + Math.log1p(Math.exp(-Math.abs(p))), 1],
    hardtanh: [(p) => Math.min(1, Math.max(-1, p)), 1],
    identity: [(p) => p, 1],
  };
  const MOST = 60; // A reader sees no more steps than this.
  const { place, left, right, calm } = begin("cobweb");
  const plane = stage(left, {
    low: -3, high: 3, ticks: [-3, -2, -1, 0, 1, 2, 3], across: "x", up: "g(x)",
    title: "The curve g(x) = φ(a x + z), the diagonal, and the steps of the iteration between them",
  });
  const curve = plane.layer(), web = plane.layer();

  const kind = select(right, "φ", Object.keys(PHI), restart);
  const a = slider(right, { name: "a", low: -1.5, high: 1.5, step: 0.05, value: -0.8 }, restart);
  const z = slider(right, { name: "z", low: -2, high: 2, step: 0.05, value: 1 }, restart);
  const kappa = slider(right, { name: "κ", low: 0.1, high: 2, step: 0.01, value: 2 }, restart);
  const start = slider(right, { name: "start x₀", low: -3, high: 3, step: 0.01, value: 2.5 }, restart);
  const buttons = add(right, "div", { className: "buttons" });
  button(buttons, "Step", () => go(1));
  const player = button(buttons, "Play", () => (timer ? stop() : play()));
  button(buttons, "Start again", restart);
  const says = add(right, "p", { className: "says" });
  says.setAttribute("aria-live", "polite");

  let iterates = [], timer = null;

  // What f does to a row with one entry: it is scaled to κ if it is larger.
  const kept = () => Math.sign(a.value) * Math.min(Math.abs(a.value), kappa.value);
  const g = (x) => PHI[kind.value][0](kept() * x + Number(z.value));
  // The contraction factor Lip(φ)|a|.
  const factor = () => PHI[kind.value][1] * Math.abs(kept());

  function restart() {
    stop();
    iterates = [Number(start.value)];
    show();
  }

  function go(count) {
    for (let i = 0; i < count && iterates.length <= MOST; i++) iterates.push(g(iterates.at(-1)));
    if (iterates.length > MOST) stop();
    show();
  }

  function play() {
    if (calm) return go(MOST); // Readers who asked for less motion see the end at once.
    if (iterates.length > MOST) restart();
    player.textContent = "Pause";
    timer = setInterval(() => go(1), 350);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    player.textContent = "Play";
  }

  function show() {
    curve.replaceChildren();
    web.replaceChildren();
    const { low, high } = plane, points = [];
    for (let x = low; x <= high + 1e-9; x += 0.01) points.push([x, g(x)]);
    draw(curve, "polyline", { points: plane.path([[low, low], [high, high]]), stroke: "var(--moving-gray)" });
    draw(curve, "polyline", { points: plane.path(points), stroke: "var(--moving-blue)", "stroke-width": 3 });
    const corners = [[iterates[0], iterates[0]]];
    for (let k = 1; k < iterates.length; k++) {
      const [x, y] = [iterates[k - 1], iterates[k]].map((v) => Math.min(1e6, Math.max(-1e6, v)));
      corners.push([x, y], [y, y]);
    }
    draw(web, "polyline", { points: plane.path(corners), stroke: "var(--moving-red)" });
    const [cx, cy] = plane.at(...corners.at(-1));
    draw(web, "circle", { cx, cy, r: 5, fill: "var(--moving-red)" });
    tell();
  }

  function tell() {
    const k = iterates.length - 1, x = iterates[k], step = k ? Math.abs(x - iterates[k - 1]) : NaN;
    const L = factor(), bound = k && L < 1 ? (L * step) / (1 - L) : Infinity;
    Object.assign(place.dataset, { k, x, step, bound, a: kept() });
    const scaled = kept() === Number(a.value) ? "" : `κ scales a to ${digits(kept())}. `;
    let sentence = `${scaled}After ${k} steps, x = <b>${digits(x)}</b>. `;
    if (k) sentence += `The last step has changed it by <b>${digits(step)}</b>. `;
    if (L < 1) {
      sentence += `The map contracts by Lip(φ)|a| = ${digits(L)}, so that there is one equilibrium. `;
      if (k) sentence += `Certificate: it is at most <b>${digits(bound)}</b> away.`;
    } else {
      sentence += `Lip(φ)|a| = ${digits(L)} is not below 1: the step alone proves nothing about the equilibrium.`;
    }
    says.innerHTML = sentence;
  }

  plane.onPoint((x) => {
    start.value = x;
    start.dispatchEvent(new Event("input"));
  });
  restart();
  go(6);
})();
