/* Reads samples, IDL_INPUTS numbers each, from standard input, and writes the outputs of each as a line of text.
 *
 *     idl-ref export model.npz --to c -o .
 *     cc -std=c99 -O2 -o predict main.c idl_model.c -lm
 *     ./predict < samples.txt
 *
 * Returns 0, or 1 if the input is not a whole number of samples, or 2 if one of them failed; its outputs are nan. */
#include <stdio.h>

#include "idl_model.h"

int main(void)
{
    static idl_arena arena;
    int most = 0, failed = 0;
    for (;;) {
        idl_real u[IDL_INPUTS], y[IDL_OUTPUTS];
        double number;
        int i, iterations;
        for (i = 0; i < IDL_INPUTS && scanf("%lf", &number) == 1; i++)
            u[i] = (idl_real)number;
        if (i < IDL_INPUTS) {
            fprintf(stderr, "at most %d of %d iterations a sample\n", most, IDL_MAX_ITERATIONS);
            return i > 0 || !feof(stdin) ? 1 : failed ? 2 : 0;
        }
        iterations = idl_predict_in(&arena, u, 1, y);
        failed |= iterations < 0;
        most = iterations > most ? iterations : most;
        for (i = 0; i < IDL_OUTPUTS; i++)
            printf(i + 1 < IDL_OUTPUTS ? "%.17g " : "%.17g\n", (double)y[i]);
    }
}
