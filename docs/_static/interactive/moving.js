// What the pages that move share: a stage with axes, sliders, and sentences that a screen reader reads when they change.
"use strict";

const moving = (() => {
  const namespace = "http://www.w3.org/2000/svg";

  // Append an element of a drawing to its parent.
  function draw(parent, tag, attributes, text) {
    const made = document.createElementNS(namespace, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  // Append an element of the page to its parent.
  function add(parent, tag, properties = {}) {
    const made = Object.assign(document.createElement(tag), properties);
    parent.append(made);
    return made;
  }

  // A square stage for the plane of two numbers between low and high. Its layers are drawn one above the other.
  function stage(parent, { low, high, ticks, across, up, title }) {
    const size = 400, edge = 34;
    const svg = draw(parent, "svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": title });
    const scale = (size - 2 * edge) / (high - low);
    const at = (x, y) => [edge + (x - low) * scale, size - edge - (y - low) * scale];
    const axes = draw(svg, "g", { stroke: "var(--moving-gray)", "stroke-width": 1 });
    for (const t of ticks) {
      const [x, y] = at(t, t), zero = t === 0 ? 1 : 0.25;
      draw(axes, "line", { x1: x, x2: x, y1: edge, y2: size - edge, opacity: zero });
      draw(axes, "line", { y1: y, y2: y, x1: edge, x2: size - edge, opacity: zero });
      draw(svg, "text", { x, y: size - edge + 16, "text-anchor": "middle" }, t);
      draw(svg, "text", { x: edge - 6, y: y + 4, "text-anchor": "end" }, t);
    }
    draw(svg, "text", { x: size - edge, y: size - 4, "text-anchor": "end" }, across);
    draw(svg, "text", { x: 4, y: edge - 14 }, up);
    const clip = `inside-${parent.id}`;
    draw(draw(draw(svg, "defs", {}), "clipPath", { id: clip }), "rect", {
      x: edge, y: edge, width: size - 2 * edge, height: size - 2 * edge,
    });
    const inside = { "clip-path": `url(#${clip})` };
    const layer = (clipped = true) => draw(svg, "g", { ...(clipped && inside), fill: "none", "stroke-width": 2 });
    const path = (points) => points.map(([x, y]) => at(x, y).map((v) => v.toFixed(2)).join(",")).join(" ");
    // The point of the plane under a pointer, rounded to hundredths.
    function under(event) {
      const box = svg.getBoundingClientRect(), unit = size / box.width;
      const x = low + ((event.clientX - box.left) * unit - edge) / scale;
      const y = high - ((event.clientY - box.top) * unit - edge) / scale;
      return [x, y].map((v) => Math.round(100 * Math.min(high, Math.max(low, v))) / 100);
    }
    // Call a function with each point where a pointer presses or drags.
    function onPoint(moved) {
      const move = (event) => moved(...under(event));
      svg.addEventListener("pointerdown", (event) => {
        svg.setPointerCapture(event.pointerId);
        move(event);
      });
      svg.addEventListener("pointermove", (event) => event.buttons && move(event));
    }
    // Let arrow keys move a point, in steps of 0.1, and let Enter choose it.
    function onKeys(label, move, choose = () => {}) {
      svg.setAttribute("tabindex", 0);
      svg.setAttribute("role", "application");
      svg.setAttribute("aria-label", label);
      const arrows = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowDown: [0, -0.1], ArrowUp: [0, 0.1] };
      svg.addEventListener("keydown", (event) => {
        if (event.key in arrows) move(...arrows[event.key]);
        else if (event.key === "Enter") choose();
        else return;
        event.preventDefault();
      });
    }
    return { svg, at, layer, path, onPoint, onKeys, low, high };
  }

  // A slider with its name and its value; `changed` is called after each change.
  function slider(parent, { name, low, high, step, value }, changed) {
    const label = add(parent, "label");
    add(label, "span", { textContent: name });
    const input = add(label, "input", { type: "range", min: low, max: high, step, value });
    const shown = add(label, "output", { textContent: value });
    input.addEventListener("input", () => {
      shown.textContent = input.value;
      changed();
    });
    return input;
  }

  function select(parent, name, choices, changed) {
    const label = add(parent, "label", { className: "whole" });
    add(label, "span", { textContent: name });
    const input = add(label, "select");
    for (const choice of choices) add(input, "option", { value: choice, textContent: choice });
    input.addEventListener("change", changed);
    return input;
  }

  function button(parent, name, pressed) {
    const made = add(parent, "button", { type: "button", textContent: name });
    made.addEventListener("click", pressed);
    return made;
  }

  // A number with as many digits as help.
  function digits(value) {
    if (!Number.isFinite(value)) return "infinite";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1).replace("e", " · 10^");
    return value.toFixed(4);
  }

  // Replace the still picture of a page by two empty columns, for the stage and for the controls.
  function begin(id) {
    const place = document.getElementById(id);
    place.replaceChildren();
    const left = add(place, "div", { id: `${id}-stage` }), right = add(place, "div", { className: "controls" });
    return { place, left, right, calm: matchMedia("(prefers-reduced-motion: reduce)").matches };
  }

  return { draw, add, stage, slider, select, button, digits, begin };
})();
