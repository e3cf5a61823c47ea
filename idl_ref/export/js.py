"""Export to JavaScript: one module of ECMAScript that imports nothing, with its weights inside in base64."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np

from idl_ref._version import __version__
from idl_ref.certificate import upward
from idl_ref.export.plan import EVERY, FORMULAS, ROUNDED, Number, Plan, decimal
from idl_ref.files import replace_all

FILE = """\
// A trained model: {equations}, φ = {activation}.
// Written by idl_ref {version}. It imports nothing, and runs in browsers and in Node.js.
//
//     import {{ predict }} from "./model.mjs";
//     const {{ outputs, status, iterations, error }} = predict(u); // u has {p} numbers{raw}
//
// For inputs in {range}: {promise}.

export const [INPUTS, STATES, OUTPUTS] = [{p}, {n}, {q}];
export const CLASSES = {classes}; // the labels of the outputs, or null if they are numbers
export const LOW = {low}; // the declared range of {ends} is LOW … HIGH
export const HIGH = {high};
export const MAX_ITERATIONS = {iterations};
export const ERROR_BOUND = {error_bound}; // No output is further from the exact one, for inputs in the range.
// There, no entry of a state is further from the equilibrium than GROWTH times the last step plus RESIDUE.
const [GROWTH, RESIDUE] = [{growth}, {residue}];

// The numbers that a text in base64 holds, least significant byte first. Matrices are stored row by row.
function read(text, Numbers = {Numbers}) {{
  return new Numbers(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}}
{weights}
{phi}

// y + W x, added up in double precision.
function addProduct(W, x, y) {{
  const sums = new Float64Array(y.length);
  for (let i = 0, k = 0; i < y.length; i++) {{
    let sum = y[i];
    for (let j = 0; j < x.length; j++) sum += W[k++] * x[j];
    sums[i] = sum;
  }}
  return sums;
}}

{solve}
// Outputs for a hidden state: Y = C x{D_text}.
const readout = (x, u) => {Numbers}.from({readout});

// The certificate of a state after a step; outside the declared range nothing is known.
const certificate = (step, inside) => (inside ? {certificate} : Infinity);

// A wrong argument in the words of an error.
function describe(value) {{
  if (Array.isArray(value) || ArrayBuffer.isView(value)) return `${{value.length ?? "bytes"}}`;
  if (typeof value === "number" || value === undefined) return `${{value}}`;
  return typeof value === "object" ? "an object" : `${{String(value)}}, a ${{typeof value}}`;
}}

// One sample, an array of {p} numbers{raw}  ->  an object with
//   outputs        {q} numbers, NaN if the sample failed
//   status         "CONVERGED", "PRECISION_LIMIT" (a success: rounding allows no smaller step), "MAX_ITER" or
//                  "NONFINITE" (an overflow); the last two occur outside the declared range only
//   iterations     how many were made, at most MAX_ITERATIONS
//   error          no entry of the hidden state is further from the equilibrium; Infinity outside the declared range
//   label          of the largest output, and probabilities: the softmax of the outputs; null without CLASSES, and if
//                  the sample failed
//   trajectory     if asked for: {{ state, step, error, outputs }} after each iteration
export function predict(given, {{ trajectory = false }} = {{}}) {{
  if (!(Array.isArray(given) || ArrayBuffer.isView(given)) || given.length !== INPUTS)
    throw new TypeError(`predict takes an array of ${{INPUTS}} numbers; got ${{describe(given)}}`);
  for (const [i, value] of given.entries())
    if (typeof value !== "number" || !Number.isFinite(value))
      throw new TypeError(`input ${{i}} must be a finite number; got ${{describe(value)}}`);
  const inside = given.every((value, i) => value >= {low_i} && value <= {high_i});
  const u = {u};
  const z = {Numbers}.from({z});
  const path = [];
  const watch = (x, step) =>
    trajectory && path.push({{ state: x.slice(), step, error: certificate(step, inside), outputs: readout(x, u) }});
  let {{ x, step, iterations, status }} = z.every(Number.isFinite) ? solve(z, watch) : {{ iterations: 0 }};
  let outputs = x ? readout(x, u) : [];
  if (!x || !outputs.every(Number.isFinite)) status = "NONFINITE";
  const ok = status === "CONVERGED" || status === "PRECISION_LIMIT";
  if (!ok) outputs = new {Numbers}(OUTPUTS).fill(NaN);
  const most = outputs.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(outputs, (y) => Math.exp(y - most));
  const total = powers.reduce((a, b) => a + b, 0);
  return {{
    outputs,
    status,
    iterations,
    error: ok ? certificate(step, inside) : Infinity,
    label: ok && CLASSES ? CLASSES[outputs.indexOf(most)] : null,
    probabilities: ok && CLASSES ? powers.map((power) => power / total) : null,
    ...(trajectory && {{ trajectory: path }}),
  }};
}}
"""

PICARD = """\
// x = φ(A x + z), by x <- φ(A x + z) from x = 0, until no entry moves by more than its limit.
function solve(z, watch) {{
  const asked = {tol} * Math.min(1, z.reduce((most, value) => Math.max(most, Math.abs(value)), {zero}));
  for (let x = new {Numbers}(STATES), k = 1; ; k++) {{
    const g = {Numbers}.from({product}, phi);
    const steps = g.map((value, i) => Math.abs(value - x[i]));
    const step = steps.reduce((most, value) => Math.max(most, value), 0);
    x = g;
    watch(x, step);
    if (step <= asked) return {{ x, step, iterations: k, status: "CONVERGED" }};
    if (k % {every} && k !== MAX_ITERATIONS) continue;
    // Inside the range, no step is larger than LIMIT after MAX_ITERATIONS.
    const limits = k === MAX_ITERATIONS ? LIMIT : rounding(x, z);
    if (steps.every((value, i) => value <= Math.max(asked, limits[i])))
      return {{ x, step, iterations: k, status: "PRECISION_LIMIT" }};
    if (k === MAX_ITERATIONS) return {{ x, step, iterations: k, status: "MAX_ITER" }};
  }}
}}

// The step in each row that rounding explains: 4 eps times the terms |A||x| + |z| that are added up there.
{absolute}
function rounding(x, z) {{
  const sizes = {sizes};
  return sizes.map((terms, i) => {eps} * {terms});
}}
"""

SWEEP = """\
// x = φ(A x + z), one row after the other, because A is strictly triangular.
function solve(z, watch) {{
  const x = new {Numbers}(STATES);
  for ({loop}) {{
    let sum = z[i];
    for (let j = 0; j < STATES; j++) sum += A[i * STATES + j] * x[j];
    x[i] = phi(sum, i);
  }}
  watch(x, 0);
  return {{ x, step: 0, iterations: 1, status: "CONVERGED" }};
}}
"""

NUMBERS = {"float32": "Float32Array", "float64": "Float64Array", "uint8": "Uint8Array"}


def source(plan: Plan) -> str:
    """The text of model.mjs."""
    n, p, q = plan.sizes
    numbers, pre, uniform = NUMBERS[plan.dtype.name], plan.preprocessing, plan.inputs.low.ndim == 0
    mean, scale = "", ""
    if pre is not None:
        mean, scale = ("MEAN[i]", "SCALE[i]") if pre.mean.ndim else (_constant(pre.mean), _constant(pre.scale))
    y = f"addProduct(C, x, {'new Float64Array(OUTPUTS)' if plan.d is None else 'd'})"
    return FILE.format(
        equations=plan.equations(),
        activation=plan.activation,
        version=__version__,
        raw="" if pre is None else ", not yet standardised",
        range=plan.inputs.text(),
        promise=plan.promise(),
        n=n,
        p=p,
        q=q,
        Numbers=numbers,
        classes="null" if plan.classes is None else json.dumps(plan.classes.tolist()).replace("<", "\\u003c"),
        low=_ends(plan.inputs.low),
        high=_ends(plan.inputs.high),
        ends="every input" if uniform else "each input",
        low_i="LOW" if uniform else "LOW[i]",
        high_i="HIGH" if uniform else "HIGH[i]",
        iterations=plan.iterations,
        error_bound=upward(plan.error_bound, 4),
        growth=upward(plan.growth, 4),
        residue=upward(plan.residue, 4),
        weights="".join(_array(name, values) for name, values in arrays(plan).items()),
        phi=_phi(plan),
        solve=_sweep(plan) if plan.triangle else _picard(plan),
        D_text=("" if plan.D is None else " + D u") + ("" if plan.d is None else " + d"),
        readout=y if plan.D is None else f"addProduct(D, u, {y})",
        certificate="RESIDUE" if plan.triangle else "GROWTH * step + RESIDUE",
        u=f"{numbers}.from(given{'' if pre is None else f', (value, i) => (value - {mean}) / {scale}'})",
        z=f"addProduct(B, u, {'new Float64Array(STATES)' if plan.b is None else 'b'})",
    )


def arrays(plan: Plan) -> dict[str, np.ndarray]:
    """The arrays of the file by name; R is transposed."""
    weights = {"Rt" if name == "R" else name: W.T if name == "R" else W for name, W in plan.weights.items()}
    return weights | plan.vectors


def _array(name: str, values: np.ndarray) -> str:
    """The definition of an array: row by row, least significant byte first."""
    return f"const {name} = {_read(values, '' if name not in ('KIND', 'MEAN', 'SCALE') else values.dtype.name)};\n"


def _read(values: np.ndarray, kind: str) -> str:
    """The call of `read` that returns the values; without a kind, they have the dtype of the model."""
    text = base64.b64encode(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()).decode()
    return f'read("{text}"{kind and f", {NUMBERS[kind]}"})'


def _ends(values: np.ndarray) -> str:
    """An end of the range: a number, or an array with one for each feature."""
    return decimal(values) if values.ndim == 0 else _read(values, values.dtype.name)


def _constant(value: Number) -> str:
    """A number as an operand, in parentheses if it is negative."""
    return f"({decimal(value)})" if value < 0 else decimal(value)


def _phi(plan: Plan) -> str:
    """The definition of φ, the C text with the functions of Math; with several kinds of rows, by the row."""
    texts = [re.sub(r"(\w+)\{f\}", r"Math.\1", FORMULAS[name].c).replace("(real)", "") for name, _ in plan.kinds]
    if len(texts) == 1:
        return f"// The activation, {plan.activation}.\nconst phi = (p) => {_grouped(texts[0])};"
    functions = "".join(f"  (p) => {_grouped(c)}, // {name}\n" for c, (name, _) in zip(texts, plan.kinds, strict=True))
    return (
        f"// The activation of row i is that of number KIND[i].\nconst PHI = [\n{functions}];\n"
        "const phi = (p, i) => PHI[KIND[i]](p);"
    )


def _grouped(text: str) -> str:
    """The text of φ, in parentheses if it is a condition."""
    return f"({text})" if "?" in text else text


def _picard(plan: Plan) -> str:
    """The text of Picard's iteration."""

    def literal(value: Number, name: str) -> str:
        return f"{name}[i]" if isinstance(value, np.ndarray) else _constant(value)

    terms = "terms"
    if np.any(plan.lipschitz != 1):
        terms = f"{literal(plan.lipschitz, 'LIPSCHITZ')} * terms"
    if plan.zero != 0:
        terms = f"{terms} + {literal(plan.formula.at_zero, 'AT_ZERO')}"
    if plan.saturated is not None:
        terms = f"Math.min({terms}, {literal(plan.saturated, 'SATURATED')})"
    elif terms != "terms":
        terms = f"({terms})"
    low_rank = len(plan.factors) == 2
    names = ("L", "Rt") if low_rank else ("A",)
    rank = f"new Float64Array({plan.factors[0].shape[1]})" if low_rank else ""
    product = f"addProduct(L, addProduct(Rt, x, {rank}), z)" if low_rank else "addProduct(A, x, z)"
    return PICARD.format(
        Numbers=NUMBERS[plan.dtype.name],
        tol=decimal(plan.tol),
        zero=decimal(plan.zero),
        product=product,
        every=EVERY,
        eps=decimal(ROUNDED * float(np.finfo(plan.dtype).eps)),
        terms=terms,
        absolute="\n".join(f"const abs{N} = {N}.map(Math.abs);" for N in names),
        sizes=re.sub(r"\b(A|L|Rt),", r"abs\1,", product)
        .replace("x,", "x.map(Math.abs),")
        .replace("z)", "z.map(Math.abs))"),
    )


def _sweep(plan: Plan) -> str:
    """The text of a sweep."""
    loop = "let i = STATES - 1; i >= 0; i--" if plan.triangle == "upper" else "let i = 0; i < STATES; i++"
    return SWEEP.format(Numbers=NUMBERS[plan.dtype.name], loop=loop)


def write(plan: Plan, directory: Path) -> list[Path]:
    """Write model.mjs to a folder and return its path."""
    path = directory / "model.mjs"
    replace_all({path: source(plan).encode()})
    return [path]
