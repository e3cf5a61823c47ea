// The page on drawn digits. digit-models.js, made when the site is built, has the exported models and the test digits.
"use strict";
(() => {
  const SIZE = 32; // The digits of the data set had 32 × 32 dots, of which a pixel counts those in a square of 4 × 4.
  const CELLS = 8;
  const PER = SIZE / CELLS;
  const WAIT = 130; // milliseconds between two steps of an animation
  const KAPPAS = Object.keys(digitModels);
  const at = (name) => document.getElementById(`digit-${name}`);
  const ink = new Uint8Array(SIZE * SIZE); // 1 where there is ink
  const cursor = { x: 16, y: 16, down: false, shown: false }; // of the keyboard
  let found = {}; // by κ, what predict returned for the drawing
  let kappa = "0.9";
  let step = 1; // the step that is shown, from 1 on
  let sample = -1; // the number of the test digit in the frame, or −1 for a drawing
  let timer = 0;

  // --- the drawing ---------------------------------------------------------------------------------------------------

  const pixels = () => {
    const counts = new Array(CELLS * CELLS).fill(0);
    ink.forEach((dot, k) => {
      const [x, y] = [k % SIZE, Math.floor(k / SIZE)];
      counts[Math.floor(y / PER) * CELLS + Math.floor(x / PER)] += dot;
    });
    return counts.map((count) => count / PER ** 2);
  };

  function dab(x, y) {
    const pen = at("pen").value;
    const radius = (pen === "0" ? 5 : Number(pen)) / 2;
    for (let j = Math.max(0, y - 2); j <= Math.min(SIZE - 1, y + 2); j++)
      for (let i = Math.max(0, x - 2); i <= Math.min(SIZE - 1, x + 2); i++)
        if (Math.hypot(i - x, j - y) <= radius) ink[j * SIZE + i] = pen === "0" ? 0 : 1;
  }

  // A straight stroke, dot by dot, so that a quick hand leaves no gaps.
  function stroke(from, to) {
    const far = Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y), 1);
    for (let k = 0; k <= far; k++)
      dab(Math.round(from.x + ((to.x - from.x) * k) / far), Math.round(from.y + ((to.y - from.y) * k) / far));
    sample = -1;
  }

  // A test digit: in each square as many dots as its pixel says, those first where the neighbours are dark, too.
  function load(number) {
    const image = [...testDigits[number]].map((letter) => letter.charCodeAt(0) - "a".charCodeAt(0));
    const dark = (x, y) => image[Math.min(CELLS - 1, Math.max(0, y)) * CELLS + Math.min(CELLS - 1, Math.max(0, x))];
    const shade = (k) => {
      const [x, y] = [((k % SIZE) + 0.5) / PER - 0.5, (Math.floor(k / SIZE) + 0.5) / PER - 0.5];
      const [i, j] = [Math.floor(x), Math.floor(y)];
      const row = (r) => (1 - x + i) * dark(i, r) + (x - i) * dark(i + 1, r);
      return (1 - y + j) * row(j) + (y - j) * row(j + 1);
    };
    ink.fill(0);
    image.forEach((count, cell) => {
      const first = Math.floor(cell / CELLS) * PER * SIZE + (cell % CELLS) * PER;
      const dots = Array.from({ length: PER ** 2 }, (_, k) => first + Math.floor(k / PER) * SIZE + (k % PER));
      dots.sort((a, b) => shade(b) - shade(a));
      for (const dot of dots.slice(0, count)) ink[dot] = 1;
    });
    sample = number;
  }

  // --- what the models say -------------------------------------------------------------------------------------------

  function changed(animate) {
    const start = performance.now();
    const u = pixels();
    for (const one of KAPPAS) found[one] = digitModels[one].predict(u, { trajectory: true });
    drawPad();
    finish(animate, start);
  }

  function finish(animate, start) {
    clearTimeout(timer);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const last = found[kappa].trajectory.length;
    step = animate && !still ? 1 : last;
    show(start);
    if (step < last) timer = setTimeout(next, WAIT);
  }

  function next() {
    step++;
    show();
    if (step < found[kappa].trajectory.length) timer = setTimeout(next, WAIT);
  }

  function softmax(y) {
    const most = Math.max(...y);
    const powers = Array.from(y, (value) => Math.exp(value - most));
    const total = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / total);
  }

  const ten = (power) => `10${power < 0 ? "⁻" : ""}${"⁰¹²³⁴⁵⁶⁷⁸⁹"[Math.abs(power)]}`;

  // A number with two digits, as 0.0031 or 4.2 × 10⁻⁸.
  function words(value) {
    if (value >= 1e-3 && value < 1e4) return `${Number(value.toPrecision(2))}`;
    const [digits, power] = value.toExponential(1).split("e");
    return `${digits} × ${ten(power)}`;
  }

  const a = (digit) => `${digit === 8 ? "an" : "a"} ${digit}`;

  function show(start = performance.now()) {
    const { trajectory, status, label, probabilities } = found[kappa];
    const now = trajectory[step - 1];
    const shares = softmax(now.outputs);
    const best = shares.indexOf(Math.max(...shares));
    const last = step === trajectory.length;
    const drawn = ink.includes(1) ? "Your drawing" : "The empty frame";
    const what = sample < 0 ? drawn : `Test digit ${sample + 1}, ${a(testLabels[sample])},`;
    const reading = `${a(digitModels[kappa].CLASSES[best])}, with probability ${(100 * shares[best]).toFixed(1)} %`;
    const verdict = `${what} reads as ${reading}.`;
    if (at("verdict").textContent !== verdict) at("verdict").textContent = verdict; // A change is read aloud.
    const proof = `no unit is further than ${words(now.error)} from its equilibrium`;
    at("proof").textContent = `After step ${step} of ${trajectory.length}, ${proof}.`;
    at("step").max = trajectory.length;
    at("step").value = step;
    at("step").setAttribute("aria-valuetext", `step ${step} of ${trajectory.length}`);
    shares.forEach((share, k) => {
      const row = at("classes").children[k];
      row.dataset.probability = (last ? probabilities : shares)[k];
      row.children[1].firstChild.style.width = `${100 * share}%`;
      row.children[2].textContent = share.toFixed(3);
      row.classList.toggle("best", k === best);
    });
    for (const one of KAPPAS) {
      const right = `${(100 * digitAccuracy[one]).toFixed(0)} % right`;
      const { MAX_ITERATIONS } = digitModels[one];
      at(`steps-${one}`).textContent = `${found[one].iterations} steps, at most ${MAX_ITERATIONS}; ${right}`;
    }
    const most = Math.max(1e-9, ...trajectory.map(({ state }) => Math.max(...state)));
    drawMap("states", (value) => value / most);
    const dark = (move) => Math.min(1, Math.max(0, 1 + Math.log10(move) / 8));
    drawMap("moves", (value, before) => dark(Math.abs(value - before)));
    drawCertificates();
    const root = at("page");
    Object.assign(root.dataset, { status, label, step, steps: trajectory.length, error: now.error, kappa });
    root.dataset.ms = performance.now() - start;
  }

  // --- pictures ------------------------------------------------------------------------------------------------------

  // The context of a canvas in CSS pixels, cleared, with its width and height and the colours of the page.
  function paper(name) {
    const canvas = at(name);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const scale = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(at("page"));
    const colour = (part) => style.getPropertyValue(`--digit-${part}`).trim();
    context.font = "12px sans-serif";
    return { context, width, height, colour };
  }

  function drawPad() {
    const { context, width, colour } = paper("pad");
    const dot = width / SIZE;
    context.fillStyle = colour("ink");
    ink.forEach((on, k) => on && context.fillRect((k % SIZE) * dot, Math.floor(k / SIZE) * dot, dot + 0.5, dot + 0.5));
    context.strokeStyle = colour("line");
    context.beginPath();
    for (let k = 1; k < CELLS; k++) {
      context.moveTo(k * PER * dot, 0);
      context.lineTo(k * PER * dot, width);
      context.moveTo(0, k * PER * dot);
      context.lineTo(width, k * PER * dot);
    }
    context.stroke();
    if (!cursor.shown) return;
    context.strokeStyle = colour("accent");
    context.lineWidth = cursor.down ? 4 : 2;
    context.strokeRect((cursor.x - 1) * dot, (cursor.y - 1) * dot, 3 * dot, 3 * dot);
  }

  // A column for each step and a row for each unit, as dark as `shade` says; steps to come are faint.
  function drawMap(name, shade) {
    const { context, width, height, colour } = paper(name);
    const { trajectory } = found[kappa];
    const [across, down] = [width / trajectory.length, height / trajectory[0].state.length];
    context.fillStyle = colour("accent");
    trajectory.forEach(({ state }, k) =>
      state.forEach((value, i) => {
        context.globalAlpha = (k < step ? 1 : 0.15) * shade(value, k ? trajectory[k - 1].state[i] : 0);
        context.fillRect(k * across, i * down, across + 0.3, down + 0.3);
      }),
    );
    context.globalAlpha = 1;
    context.strokeStyle = colour("text");
    context.lineWidth = 2;
    context.strokeRect((step - 1) * across + 1, 1, across - 2, height - 2);
  }

  // The certificates of all steps on a logarithmic scale, for each κ.
  function drawCertificates() {
    const { context, width, height, colour } = paper("certificates");
    const [left, bottom, top, low, high] = [34, height - 32, 8, -9, 2];
    const longest = Math.max(...KAPPAS.map((one) => found[one].trajectory.length));
    const x = (k) => left + ((width - left - 52) * k) / Math.max(1, longest - 1);
    const y = (error) => top + ((high - Math.log10(error)) / (high - low)) * (bottom - top);
    context.textBaseline = "middle";
    for (let power = low; power <= high; power++) {
      context.strokeStyle = colour("line");
      context.beginPath();
      context.moveTo(left, y(10 ** power));
      context.lineTo(width, y(10 ** power));
      context.stroke();
      context.fillStyle = colour("text");
      if (power % 2 === 0) context.fillText(ten(power), 4, y(10 ** power));
    }
    context.fillText("step 1", left, bottom + 16);
    context.fillText(`step ${longest}`, x(longest - 1) - 20, bottom + 16);
    KAPPAS.forEach((one, number) => {
      const { trajectory } = found[one];
      context.strokeStyle = context.fillStyle = colour(one === kappa ? "accent" : "text");
      context.globalAlpha = one === kappa ? 1 : 0.75;
      context.lineWidth = one === kappa ? 3 : 1.5;
      context.setLineDash([[2, 3], [7, 4], []][number]);
      context.beginPath();
      trajectory.forEach(({ error }, k) => context.lineTo(x(k), y(error)));
      context.stroke();
      const k = Math.round((trajectory.length - 1) * [0.5, 1, 0.5][number]);
      context.textAlign = ["right", "center", "left"][number];
      context.fillText(`κ = ${one}`, x(k) + [-8, 0, 8][number], y(trajectory[k].error) + [6, 15, -6][number]);
      if (one !== kappa) return;
      context.beginPath();
      context.arc(x(step - 1), y(trajectory[step - 1].error), 6, 0, 7);
      context.fill();
    });
    context.globalAlpha = 1;
  }

  const redraw = () => (drawPad(), show());

  // --- mouse, touch and keyboard -------------------------------------------------------------------------------------

  function listen() {
    const pad = at("pad");
    const dot = (event) => {
      const box = pad.getBoundingClientRect();
      const place = (value, size) => Math.min(SIZE - 1, Math.max(0, Math.floor((value / size) * SIZE)));
      return { x: place(event.clientX - box.left, box.width), y: place(event.clientY - box.top, box.height) };
    };
    let last = null; // where the pen is while it is down
    pad.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || last) return;
      pad.setPointerCapture(event.pointerId);
      last = dot(event);
      cursor.shown = false;
      stroke(last, last);
      changed(false);
    });
    pad.addEventListener("pointermove", (event) => {
      if (!last) return;
      const here = dot(event);
      stroke(last, here);
      last = here;
      changed(false);
    });
    const lift = () => {
      if (last) changed(true);
      last = null;
    };
    for (const kind of ["pointerup", "pointercancel"]) pad.addEventListener(kind, lift);
    pad.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way && event.key !== " ") return;
      event.preventDefault();
      const from = { ...cursor };
      if (!way) cursor.down = !cursor.down;
      const inside = (value) => Math.min(SIZE - 1, Math.max(0, value));
      if (way) Object.assign(cursor, { x: inside(cursor.x + way[0]), y: inside(cursor.y + way[1]) });
      cursor.shown = true;
      if (cursor.down) stroke(from, cursor);
      if (cursor.down || !way) changed(!cursor.down);
      else drawPad();
    });
    pad.addEventListener("blur", () => ((cursor.shown = cursor.down = false), drawPad()));
    at("next").addEventListener("click", () => (load((sample + 1) % testDigits.length), changed(true)));
    at("clear").addEventListener("click", () => (ink.fill(0), (sample = -1), changed(false)));
    at("play").addEventListener("click", () => finish(true));
    at("step").addEventListener("input", () => (clearTimeout(timer), (step = Number(at("step").value)), show()));
    for (const one of KAPPAS) at(`kappa-${one}`).addEventListener("change", () => ((kappa = one), finish(false)));
    new ResizeObserver(redraw).observe(at("page"));
    new MutationObserver(redraw).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  at("page").hidden = false;
  load(23); // This one is hard to read.
  changed(true);
  listen();
})();
