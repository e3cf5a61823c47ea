//! A backend in Rust for the conformance kit: X = relu(A X + B U), Y = C X + D U and its gradients, in f64.
//!
//! Build:  rustc --edition 2021 -O backend.rs -o backend_rust
//! Check:  idl-ref conformance run --command ./backend_rust
//!
//! A request is one line of JSON with the folders "dir" and "out". The folder "dir" holds problem.txt, with a key and a
//! value per line, and raw arrays, A.bin, or L.bin and R.bin …, by rows; the answer is written to "out" the same way.
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::Path;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Clone)]
struct Matrix {
    rows: usize,
    columns: usize,
    data: Vec<f64>,
}

impl Matrix {
    fn zeros(rows: usize, columns: usize) -> Self {
        Matrix { rows, columns, data: vec![0.0; rows * columns] }
    }
    fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Matrix { data: self.data.iter().map(|&value| f(value)).collect(), ..*self }
    }
    fn t(&self) -> Self {
        let mut out = Matrix::zeros(self.columns, self.rows);
        for i in 0..self.rows {
            for j in 0..self.columns {
                out.data[j * self.rows + i] = self.data[i * self.columns + j];
            }
        }
        out
    }
    fn times(&self, other: &Matrix) -> Self {
        let mut out = Matrix::zeros(self.rows, other.columns);
        for i in 0..self.rows {
            for k in 0..self.columns {
                for j in 0..other.columns {
                    out.data[i * other.columns + j] +=
                        self.data[i * self.columns + k] * other.data[k * other.columns + j];
                }
            }
        }
        out
    }
    fn plus(&self, other: &Matrix) -> Self {
        let data = self.data.iter().zip(&other.data).map(|(a, b)| a + b).collect();
        Matrix { data, ..*self }
    }
}

fn apply(factors: &[Matrix], x: &Matrix) -> Matrix {
    factors.iter().rev().fold(x.clone(), |last, factor| factor.times(&last))
}

struct Problem {
    facts: HashMap<String, String>,
    arrays: HashMap<String, Matrix>,
}

impl Problem {
    fn load(folder: &Path) -> Outcome<Self> {
        let text = fs::read_to_string(folder.join("problem.txt"))?;
        let facts: HashMap<String, String> =
            text.lines().filter_map(|line| line.split_once(' ')).map(|(k, v)| (k.into(), v.into())).collect();
        let mut problem = Problem { facts, arrays: HashMap::new() };
        for (name, rows, columns) in [
            ("A", "n", "n"), ("L", "n", "r"), ("R", "n", "r"), ("B", "n", "p"),
            ("C", "q", "n"), ("D", "q", "p"), ("U", "p", "m"), ("G_Y", "q", "m"),
        ] {
            let file = folder.join(format!("{name}.bin"));
            if file.exists() {
                let (rows, columns) = (problem.number(rows)?, problem.number(columns)?);
                let bytes = fs::read(file)?;
                let data = bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
                problem.arrays.insert(name.into(), Matrix { rows, columns, data });
            }
        }
        Ok(problem)
    }
    fn number<T: std::str::FromStr>(&self, key: &str) -> Outcome<T>
    where
        T::Err: Error + 'static,
    {
        Ok(self.facts.get(key).ok_or(format!("problem.txt has no {key}"))?.parse()?)
    }
    fn get(&self, name: &str) -> Outcome<&Matrix> {
        self.arrays.get(name).ok_or_else(|| format!("there is no {name}.bin").into())
    }
    fn factors(&self) -> Outcome<Vec<Matrix>> {
        Ok(match self.arrays.get("A") {
            Some(a) => vec![a.clone()],
            None => vec![self.get("L")?.clone(), self.get("R")?.t()],
        })
    }
}

/// X = relu(A X + Z), or V = S (Aᵀ V + Z) for a given S, and which columns converged: those in which tol, or rounding,
/// explains the step of every row.
fn solve(p: &Problem, factors: &[Matrix], z: &Matrix, slopes: Option<&Matrix>) -> Outcome<(Matrix, Vec<u8>)> {
    let sizes: Vec<Matrix> = factors.iter().map(|factor| factor.map(f64::abs)).collect();
    let (tol, max_iter) = (p.number::<f64>("tol")?, p.number::<usize>("max_iter")?);
    let (mut x, mut done) = (Matrix::zeros(z.rows, z.columns), vec![0u8; z.columns]);
    for _ in 0..max_iter {
        if !done.contains(&0) {
            break;
        }
        let (sums, noise) = (apply(factors, &x).plus(z), apply(&sizes, &x.map(f64::abs)).plus(&z.map(f64::abs)));
        for j in (0..z.columns).filter(|&j| done[j] == 0).collect::<Vec<_>>() {
            let column: Vec<usize> = (0..z.rows).map(|i| i * z.columns + j).collect();
            let floor = tol * column.iter().fold(0.0, |most: f64, &at| most.max(z.data[at].abs())).min(1.0);
            let mut stop = true;
            for at in column {
                let slope = slopes.map_or(1.0, |s| s.data[at]);
                let next = match slopes {
                    None if sums.data[at] <= 0.0 => 0.0, // NaN stays NaN
                    _ => slope * sums.data[at],
                };
                let rounding = 4.0 * f64::EPSILON * (slope * noise.data[at] + next.abs());
                stop &= next.is_finite() && (next - x.data[at]).abs() <= floor.max(rounding);
                x.data[at] = next;
            }
            done[j] = stop.into();
        }
    }
    Ok((x, done))
}

fn write(out: &Path, name: &str, m: &Matrix) -> Outcome<()> {
    let bytes: Vec<u8> = m.data.iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(fs::write(out.join(format!("{name}.bin")), bytes)?)
}

fn forward(p: &Problem, out: &Path) -> Outcome<()> {
    let (x, done) = solve(p, &p.factors()?, &p.get("B")?.times(p.get("U")?), None)?;
    let y = p.get("C")?.times(&x);
    write(out, "X", &x)?;
    write(out, "Y", &if let Ok(d) = p.get("D") { y.plus(&d.times(p.get("U")?)) } else { y })?;
    Ok(fs::write(out.join("converged.bin"), done)?)
}

fn vjp(p: &Problem, out: &Path) -> Outcome<()> {
    let (factors, u, g_y) = (p.factors()?, p.get("U")?, p.get("G_Y")?);
    let z = p.get("B")?.times(u);
    let (x, _) = solve(p, &factors, &z, None)?;
    let slopes = apply(&factors, &x).plus(&z).map(|value| f64::from(value > 0.0));
    let back: Vec<Matrix> = factors.iter().rev().map(Matrix::t).collect();
    let (v, _) = solve(p, &back, &p.get("C")?.t().times(g_y), Some(&slopes))?;
    let mut g_u = p.get("B")?.t().times(&v);
    if let Ok(d) = p.get("D") {
        g_u = g_u.plus(&d.t().times(g_y));
        write(out, "grad_D", &g_y.times(&u.t()))?;
    }
    if p.arrays.contains_key("A") {
        write(out, "grad_A", &v.times(&x.t()))?;
    } else {
        write(out, "grad_L", &v.times(&x.t().times(p.get("R")?)))?;
        write(out, "grad_R", &x.times(&v.t().times(p.get("L")?)))?;
    }
    write(out, "grad_U", &g_u)?;
    write(out, "grad_B", &v.times(&u.t()))?;
    write(out, "grad_C", &g_y.times(&x.t()))
}

/// The value of a key of a JSON object on one line: a string without escapes, or a number.
fn field<'a>(line: &'a str, key: &str) -> &'a str {
    let Some((_, rest)) = line.split_once(&format!("\"{key}\": ")) else { return "" };
    match rest.strip_prefix('"') {
        Some(text) => text.split('"').next().unwrap_or(""),
        None => rest.split([',', '}']).next().unwrap_or(""),
    }
}

fn main() -> Outcome<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let answered = || -> Outcome<()> {
            let (problem, out) = (Problem::load(Path::new(field(&line, "dir")))?, Path::new(field(&line, "out")));
            if field(&line, "op") == "vjp" { vjp(&problem, out) } else { forward(&problem, out) }
        };
        let reply = match field(&line, "op") {
            "bye" => break,
            "hello" => r#""name": "Rust example", "capabilities": {"dtypes": ["float64"], "activations": ["relu"]}"#.into(),
            _ => match answered() {
                Ok(()) => r#""ok": true"#.into(),
                Err(reason) => format!("\"error\": \"{}\"", reason.to_string().replace(['"', '\\'], "'")),
            },
        };
        println!("{{{reply}, \"id\": {}}}", field(&line, "id"));
        io::stdout().flush()?;
    }
    Ok(())
}
