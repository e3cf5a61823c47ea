"""How good a right backend is: accuracy, iterations, time and memory; two reports compared; a badge."""
