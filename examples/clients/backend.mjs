// A backend in JavaScript for the conformance kit: X = relu(A X + B U), Y = C X + D U and its gradients, in float64.
//
// Check:  idl-ref conformance run --command "node backend.mjs"
//
// A request is one line of JSON with the folders "dir" and "out". The folder "dir" holds problem.json and raw arrays,
// A.bin, or L.bin and R.bin …, by rows; the answer is written to "out" in the same way.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

class Matrix {
  constructor(rows, columns, data = new Float64Array(rows * columns)) {
    Object.assign(this, { rows, columns, data });
  }
  map(f) {
    return new Matrix(this.rows, this.columns, this.data.map(f));
  }
  get T() {
    const out = new Matrix(this.columns, this.rows);
    for (let i = 0; i < this.rows; i++)
      for (let j = 0; j < this.columns; j++) out.data[j * this.rows + i] = this.data[i * this.columns + j];
    return out;
  }
  times(N) {
    const out = new Matrix(this.rows, N.columns);
    const [M, from, to, width] = [this.data, N.data, out.data, N.columns];
    for (let i = 0; i < this.rows; i++)
      for (let k = 0; k < this.columns; k++) {
        const factor = M[i * this.columns + k];
        for (let j = 0; j < width; j++) to[i * width + j] += factor * from[k * width + j];
      }
    return out;
  }
  plus(N) {
    return N === undefined ? this : this.map((value, k) => value + N.data[k]);
  }
}

const apply = (factors, X) => factors.reduceRight((last, F) => F.times(last), X);

// X = f(A X + Z), entry by entry, from 0; a column stops when tol explains the step of every row, or rounding does,
// which is looked at in every eighth step.
function solve(factors, Z, tol, maxIter, f, slope) {
  const sizes = factors.map((F) => F.map(Math.abs));
  const X = new Matrix(Z.rows, Z.columns);
  const done = new Uint8Array(Z.columns);
  for (let k = 0; k < maxIter && done.includes(0); k++) {
    const P = apply(factors, X).plus(Z);
    const noise = k % 8 ? undefined : apply(sizes, X.map(Math.abs)).plus(Z.map(Math.abs)).data;
    for (let j = 0; j < Z.columns; j++) {
      if (done[j]) continue;
      const column = Array.from({ length: Z.rows }, (_, i) => i * Z.columns + j);
      const floor = tol * Math.min(1, column.reduce((most, at) => Math.max(most, Math.abs(Z.data[at])), 0));
      let stop = true;
      for (const at of column) {
        const next = f(P.data[at], at);
        const rounding = noise ? 4 * Number.EPSILON * (slope(at) * noise[at] + Math.abs(next)) : 0;
        stop = stop && Number.isFinite(next) && Math.abs(next - X.data[at]) <= Math.max(floor, rounding);
        X.data[at] = next;
      }
      done[j] = stop;
    }
  }
  return { X, done };
}

function load(folder) {
  const problem = JSON.parse(readFileSync(join(folder, "problem.json"), "utf8"));
  const arrays = {};
  for (const [name, { path, shape }] of Object.entries(problem.arrays)) {
    const bytes = readFileSync(join(folder, path));
    arrays[name] = new Matrix(...shape, new Float64Array(Uint8Array.from(bytes).buffer));
  }
  return { ...problem, ...arrays, factors: arrays.A ? [arrays.A] : [arrays.L, arrays.R.T] };
}

const relu = (value) => (value <= 0 ? 0 : value); // NaN stays NaN

function forward(p) {
  const Z = p.B.times(p.U);
  const { X, done } = solve(p.factors, Z, p.tol, p.max_iter, relu, () => 1);
  return { Z, X, converged: done, Y: p.C.times(X).plus(p.D?.times(p.U)) };
}

function vjp(p) {
  const { X, Z } = forward(p);
  const S = apply(p.factors, X).plus(Z).map((value) => Number(value > 0));
  const transposed = p.factors.map((F) => F.T).reverse();
  const scaled = (value, at) => S.data[at] * value;
  const V = solve(transposed, p.C.T.times(p.G_Y), p.tol, p.max_iter, scaled, (at) => S.data[at]).X;
  const gradients = { B: V.times(p.U.T), C: p.G_Y.times(X.T), U: p.B.T.times(V).plus(p.D?.T.times(p.G_Y)) };
  if (p.D) gradients.D = p.G_Y.times(p.U.T);
  if (p.A) gradients.A = V.times(X.T);
  else Object.assign(gradients, { L: V.times(p.R.T.times(X).T), R: X.times(p.L.T.times(V).T) });
  return Object.fromEntries(Object.entries(gradients).map(([name, M]) => [`grad_${name}`, M]));
}

function answer({ op, dir, out }) {
  if (op === "hello")
    return { name: "JavaScript example", capabilities: { dtypes: ["float64"], activations: ["relu"], phi0: 0 } };
  const { Z, ...found } = (op === "forward" ? forward : vjp)(load(dir));
  for (const [name, M] of Object.entries(found)) writeFileSync(join(out, `${name}.bin`), M.data ?? M);
  return { ok: true };
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.op === "bye") break;
  let reply;
  try {
    reply = answer(request);
  } catch (error) {
    reply = { error: String(error) };
  }
  console.log(JSON.stringify({ ...reply, id: request.id }));
}
