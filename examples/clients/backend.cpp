// A backend in C++17 for the conformance kit: X = relu(A X + B U), Y = C X + D U and its gradients, in double.
//
// Build:  c++ -std=c++17 -O2 -Wall -Wextra -Werror backend.cpp -o backend_cpp
// Check:  idl-ref conformance run --command ./backend_cpp
//
// A request is one line of JSON with the folders "dir" and "out". The folder "dir" holds problem.txt, with a key and a
// value per line, and raw arrays, A.bin, or L.bin and R.bin …, by rows; the answer is written to "out" in the same way.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace fs = std::filesystem;

struct Matrix {
    int rows = 0, columns = 0;
    std::vector<double> data;
    Matrix() = default;
    Matrix(int rows, int columns) : rows(rows), columns(columns), data(static_cast<std::size_t>(rows) * columns) {}
    double &operator()(int i, int j) { return data[static_cast<std::size_t>(i) * columns + j]; }
    double operator()(int i, int j) const { return data[static_cast<std::size_t>(i) * columns + j]; }
};

Matrix transposed(const Matrix &M) {
    Matrix out(M.columns, M.rows);
    for (int i = 0; i < M.rows; i++)
        for (int j = 0; j < M.columns; j++) out(j, i) = M(i, j);
    return out;
}

Matrix operator*(const Matrix &M, const Matrix &N) {
    Matrix out(M.rows, N.columns);
    for (int i = 0; i < M.rows; i++)
        for (int k = 0; k < M.columns; k++)
            for (int j = 0; j < N.columns; j++) out(i, j) += M(i, k) * N(k, j);
    return out;
}

Matrix operator+(Matrix M, const Matrix &N) {
    std::transform(M.data.begin(), M.data.end(), N.data.begin(), M.data.begin(), std::plus<>());
    return M;
}

template <class F> Matrix map(Matrix M, F f) {
    std::transform(M.data.begin(), M.data.end(), M.data.begin(), f);
    return M;
}

double size(double value) { return std::fabs(value); }

using Factors = std::vector<Matrix>;

Matrix product(const Factors &factors, Matrix X) {
    for (auto F = factors.rbegin(); F != factors.rend(); ++F) X = *F * X;
    return X;
}

struct Problem {
    std::map<std::string, std::string> facts;
    std::map<std::string, Matrix> arrays;

    explicit Problem(const fs::path &folder) {
        std::ifstream text(folder / "problem.txt");
        for (std::string key, value; text >> key >> value;) facts[key] = value;
        const int n = whole("n"), p = whole("p"), q = whole("q"), m = whole("m"), r = whole("r");
        const std::map<std::string, std::pair<int, int>> shapes = {{"A", {n, n}}, {"L", {n, r}}, {"R", {n, r}}, {"B", {n, p}},
                                                                   {"C", {q, n}}, {"D", {q, p}}, {"U", {p, m}}, {"G_Y", {q, m}}};
        for (const auto &[name, shape] : shapes) {
            std::ifstream file(folder / (name + ".bin"), std::ios::binary);
            if (!file) continue;  // this problem has no such array
            Matrix M(shape.first, shape.second);
            const auto bytes = static_cast<std::streamsize>(M.data.size() * sizeof(double));
            if (!file.read(reinterpret_cast<char *>(M.data.data()), bytes)) throw std::runtime_error(name + ".bin is too short");
            arrays[name] = M;
        }
    }
    int whole(const std::string &key) const { return std::stoi(facts.at(key)); }
    const Matrix &operator[](const std::string &name) const { return arrays.at(name); }
    bool has(const std::string &name) const { return arrays.count(name) > 0; }
    Factors factors() const { return has("A") ? Factors{arrays.at("A")} : Factors{arrays.at("L"), transposed(arrays.at("R"))}; }
};

// X = relu(A X + Z), or V = S (Aᵀ V + Z) where S is given; a column stops when tol, or rounding, explains every row.
Matrix solve(const Problem &p, const Factors &factors, const Matrix &Z, const Matrix *S, std::vector<char> &done) {
    Factors sizes;
    for (const auto &F : factors) sizes.push_back(map(F, size));
    Matrix X(Z.rows, Z.columns);
    const double tol = std::stod(p.facts.at("tol")), eps = 4 * std::numeric_limits<double>::epsilon();
    done.assign(static_cast<std::size_t>(Z.columns), 0);
    for (int k = 0; k < p.whole("max_iter") && std::count(done.begin(), done.end(), 0); k++) {
        const Matrix P = product(factors, X) + Z, noise = product(sizes, map(X, size)) + map(Z, size);
        for (int j = 0; j < Z.columns; j++) {
            if (done[j]) continue;
            double z = 0;
            bool stop = true;
            for (int i = 0; i < Z.rows; i++) z = std::max(z, size(Z(i, j)));
            for (int i = 0; i < Z.rows; i++) {
                const double next = S ? (*S)(i, j) * P(i, j) : (P(i, j) <= 0 ? 0 : P(i, j));  // NaN stays NaN
                const double rounding = eps * ((S ? (*S)(i, j) : 1) * noise(i, j) + size(next));
                stop = stop && std::isfinite(next) && size(next - X(i, j)) <= std::max(tol * std::min(1.0, z), rounding);
                X(i, j) = next;
            }
            done[j] = stop;
        }
    }
    return X;
}

template <class T> void write(const fs::path &file, const std::vector<T> &data) {
    std::ofstream stream(file, std::ios::binary);
    if (!stream.write(reinterpret_cast<const char *>(data.data()), static_cast<std::streamsize>(data.size() * sizeof(T))))
        throw std::runtime_error("cannot write " + file.string());
}

void answer(const Problem &p, bool gradients, const fs::path &out) {
    std::vector<char> done, ignored;
    const Matrix Z = p["B"] * p["U"], X = solve(p, p.factors(), Z, nullptr, done);
    if (!gradients) {
        const Matrix Y = p["C"] * X;
        write(out / "X.bin", X.data);
        write(out / "Y.bin", p.has("D") ? (Y + p["D"] * p["U"]).data : Y.data);
        write(out / "converged.bin", done);
        return;
    }
    const Matrix &G_Y = p["G_Y"], S = map(product(p.factors(), X) + Z, [](double v) { return v > 0 ? 1.0 : 0.0; });
    Factors back;
    for (const auto &F : p.factors()) back.insert(back.begin(), transposed(F));
    const Matrix V = solve(p, back, transposed(p["C"]) * G_Y, &S, ignored), Ut = transposed(p["U"]), Xt = transposed(X);
    std::map<std::string, Matrix> found = {{"B", V * Ut}, {"C", G_Y * Xt}, {"U", transposed(p["B"]) * V}};
    if (p.has("D")) found["U"] = found["U"] + transposed(p["D"]) * G_Y, found["D"] = G_Y * Ut;
    if (p.has("A")) found["A"] = V * Xt;
    else found["L"] = V * (Xt * p["R"]), found["R"] = X * (transposed(V) * p["L"]);
    for (const auto &[name, M] : found) write(out / ("grad_" + name + ".bin"), M.data);
}

// The value of a key of a JSON object on one line: a string without escapes, or a number.
std::string field(const std::string &line, const std::string &key) {
    const auto at = line.find("\"" + key + "\": ");
    if (at == std::string::npos) return "";
    const auto from = at + key.size() + 4;
    if (line[from] == '"') return line.substr(from + 1, line.find('"', from + 1) - from - 1);
    return line.substr(from, line.find_first_of(",}", from) - from);
}

int main() {
    for (std::string line; std::getline(std::cin, line);) {
        const std::string op = field(line, "op"), id = ", \"id\": " + field(line, "id") + "}";
        if (op == "bye") return 0;
        try {
            if (op == "hello") {
                std::cout << R"({"name": "C++ example", "capabilities": {"dtypes": ["float64"], "activations": ["relu"]})";
            } else {
                answer(Problem(field(line, "dir")), op == "vjp", field(line, "out"));
                std::cout << R"({"ok": true)";
            }
        } catch (const std::exception &reason) {
            std::cout << R"({"error": ")" << reason.what() << '"';
        }
        std::cout << id << std::endl;
    }
}
