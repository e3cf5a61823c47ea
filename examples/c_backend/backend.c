/* A backend in C99 for the conformance kit: X = relu(A X + B U), Y = C X + D U and its gradients, in double.
 *
 * Build:  cc -std=c99 -O2 -Wall -Wextra -Werror -pedantic backend.c -lm -o backend
 * Check:  python -m idl_ref conformance run --command ./backend
 *
 * A request is one line of JSON with the folders "dir" and "out". The folder "dir" holds problem.txt, with a key and a
 * value per line, and raw arrays, A.bin or L.bin and R.bin …, by rows; the answer is written to "out" in the same way. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int n, p, q, m, r, has_D, max_iter; double tol; } Sizes; /* r = -1: A is dense */

static char in[4096], out[4096];
static double *zeros(long count) { return calloc((size_t)(count > 0 ? count : 1), sizeof(double)); }

static FILE *open_array(const char *dir, const char *name, const char *mode) {
    char file[8192];
    snprintf(file, sizeof file, "%s/%s.bin", dir, name);
    return fopen(file, mode);
}
static double *read_array(const char *name, long count) {
    double *M = zeros(count);
    FILE *f = open_array(in, name, "rb");
    if (!f || fread(M, sizeof(double), (size_t)count, f) != (size_t)count || fclose(f)) exit(3);
    return M;
}
static void write_array(const char *name, const void *M, size_t size, long count) {
    FILE *f = open_array(out, name, "wb");
    if (!f || fwrite(M, size, (size_t)count, f) != (size_t)count || fclose(f)) exit(3);
}

/* out (a, c) += M N, M (a, b) or its transpose, N (b, c) or its transpose */
static void product(double *to, const double *M, int Mt, const double *N, int Nt, int a, int b, int c) {
    for (int i = 0; i < a; i++)
        for (int k = 0; k < b; k++)
            for (int j = 0; j < c; j++)
                to[i * c + j] += (Mt ? M[k * a + i] : M[i * b + k]) * (Nt ? N[j * b + k] : N[k * c + j]);
}

/* P = A X, or Aᵀ X, through the factors where there are two */
static void apply(const Sizes *s, const double *A, const double *L, const double *R, int t, const double *X, double *P) {
    memset(P, 0, sizeof(double) * (size_t)(s->n * s->m));
    if (s->r < 0) { product(P, A, t, X, 0, s->n, s->n, s->m); return; }
    double *low = zeros((long)s->r * s->m);
    product(low, t ? L : R, 1, X, 0, s->r, s->n, s->m);
    product(P, t ? R : L, 0, low, 0, s->n, s->r, s->m);
    free(low);
}

static double *sizes(const double *M, long count) { /* |M|, or NULL for NULL */
    double *size = M ? zeros(count) : NULL;
    for (long i = 0; M && i < count; i++) size[i] = fabs(M[i]);
    return size;
}

/* X = relu(A X + Z) where S is NULL, else V = S (A^T V + Z); a column stops when tol, or rounding, explains every row */
static void solve(const Sizes *s, const double *A, const double *L, const double *R, const double *S, const double *Z,
                  double *X, unsigned char *done) {
    double *P = zeros((long)s->n * s->m), *N = zeros((long)s->n * s->m);
    double *aA = sizes(A, (long)s->n * s->n), *aL = sizes(L, (long)s->n * s->r), *aR = sizes(R, (long)s->n * s->r);
    memset(done, 0, (size_t)s->m);
    for (int k = 0; k < s->max_iter && memchr(done, 0, (size_t)s->m); k++) {
        double *aX = sizes(X, (long)s->n * s->m);
        apply(s, A, L, R, S != NULL, X, P), apply(s, aA, aL, aR, S != NULL, aX, N), free(aX);
        for (int j = 0; j < s->m; j++) {
            double z = 0;
            int stop = 1;
            for (int i = 0; i < s->n; i++) z = fmax(z, fabs(Z[i * s->m + j]));
            for (int i = 0; i < s->n && !done[j]; i++) {
                double p = P[i * s->m + j] + Z[i * s->m + j], old = X[i * s->m + j];
                double g = S ? S[i * s->m + j] * p : (p <= 0 ? 0 : p); /* NaN stays NaN */
                double noise = (S ? S[i * s->m + j] : 1) * (N[i * s->m + j] + fabs(Z[i * s->m + j])) + fabs(g);
                noise *= 4 * 2.220446049250313e-16;
                stop = stop && isfinite(g) && fabs(g - old) <= fmax(s->tol * fmin(1, z), noise);
                X[i * s->m + j] = g;
            }
            if (!done[j]) done[j] = stop;
        }
    }
    free(P), free(N), free(aA), free(aL), free(aR);
}

static void answer(const Sizes *s, int gradients) {
    int n = s->n, p = s->p, q = s->q, m = s->m, r = s->r;
    double *A = NULL, *L = NULL, *R = NULL, *D = s->has_D ? read_array("D", (long)q * p) : NULL;
    if (r < 0) A = read_array("A", (long)n * n);
    else L = read_array("L", (long)n * r), R = read_array("R", (long)n * r);
    double *B = read_array("B", (long)n * p), *C = read_array("C", (long)q * n), *U = read_array("U", (long)p * m);
    double *Z = zeros((long)n * m), *X = zeros((long)n * m), *Y = zeros((long)q * m);
    unsigned char *done = malloc((size_t)m + 1); /* per column: 1 when it has converged */
    product(Z, B, 0, U, 0, n, p, m);
    solve(s, A, L, R, NULL, Z, X, done);
    product(Y, C, 0, X, 0, q, n, m);
    if (D) product(Y, D, 0, U, 0, q, p, m);
    if (!gradients) {
        write_array("X", X, sizeof(double), (long)n * m), write_array("Y", Y, sizeof(double), (long)q * m);
        write_array("converged", done, 1, m);
    } else {
        double *G_Y = read_array("G_Y", (long)q * m), *G = zeros((long)n * m), *S = zeros((long)n * m);
        double *V = zeros((long)n * m), *out_B = zeros((long)n * p), *out_C = zeros((long)q * n);
        double *out_U = zeros((long)p * m), *out_A = zeros((long)n * n), *out_D = zeros((long)q * p);
        apply(s, A, L, R, 0, X, S);
        for (long i = 0; i < (long)n * m; i++) S[i] = S[i] + Z[i] > 0;
        product(G, C, 1, G_Y, 0, n, q, m);
        solve(s, A, L, R, S, G, V, done);
        product(out_B, V, 0, U, 1, n, m, p), product(out_C, G_Y, 0, X, 1, q, m, n);
        product(out_U, B, 1, V, 0, p, n, m);
        if (D) product(out_U, D, 1, G_Y, 0, p, q, m), product(out_D, G_Y, 0, U, 1, q, m, p);
        write_array("grad_B", out_B, sizeof(double), (long)n * p), write_array("grad_C", out_C, sizeof(double), (long)q * n);
        write_array("grad_U", out_U, sizeof(double), (long)p * m);
        if (D) write_array("grad_D", out_D, sizeof(double), (long)q * p);
        if (r < 0) product(out_A, V, 0, X, 1, n, m, n), write_array("grad_A", out_A, sizeof(double), (long)n * n);
        else { /* dL = V (R^T X)^T, dR = X (L^T V)^T */
            double *RX = zeros((long)r * m), *LV = zeros((long)r * m), *G_L = zeros((long)n * r), *G_R = zeros((long)n * r);
            product(RX, R, 1, X, 0, r, n, m), product(LV, L, 1, V, 0, r, n, m);
            product(G_L, V, 0, RX, 1, n, m, r), product(G_R, X, 0, LV, 1, n, m, r);
            write_array("grad_L", G_L, sizeof(double), (long)n * r), write_array("grad_R", G_R, sizeof(double), (long)n * r);
            free(RX), free(LV), free(G_L), free(G_R);
        }
        free(G_Y), free(G), free(S), free(V), free(out_B), free(out_C), free(out_U), free(out_A), free(out_D);
    }
    free(A), free(L), free(R), free(D), free(B), free(C), free(U), free(Z), free(X), free(Y), free(done);
}

/* the string after "key": " in a line of JSON */
static void field(const char *line, const char *key, char *to) {
    const char *at = strstr(line, key);
    to[0] = 0;
    if (at) sscanf(at + strlen(key), "\": \"%4095[^\"]", to);
}

int main(void) {
    static char line[16384], op[4096], key[64], value[64], file[8192];
    while (fgets(line, sizeof line, stdin)) {
        field(line, "\"op", op), field(line, "\"dir", in), field(line, "\"out", out);
        if (!strcmp(op, "bye")) return 0;
        if (!strcmp(op, "hello")) {
            printf("{\"name\": \"C99\", \"capabilities\": {\"dtypes\": [\"float64\"], \"activations\": [\"relu\"]}}\n");
        } else {
            Sizes s = {0, 0, 0, 0, -1, 0, 0, 0};
            snprintf(file, sizeof file, "%s/problem.txt", in);
            FILE *f = fopen(file, "r");
            while (f && fscanf(f, "%63s %63s", key, value) == 2) {
                const char *names[] = {"n", "p", "q", "m", "r", "has_D", "max_iter"};
                int *to[] = {&s.n, &s.p, &s.q, &s.m, &s.r, &s.has_D, &s.max_iter};
                for (int i = 0; i < 7; i++) if (!strcmp(key, names[i])) *to[i] = atoi(value);
                if (!strcmp(key, "tol")) s.tol = atof(value);
            }
            if (!f || fclose(f)) return 3;
            answer(&s, !strcmp(op, "vjp"));
            printf("{\"ok\": true}\n");
        }
        fflush(stdout);
    }
    return 0;
}
