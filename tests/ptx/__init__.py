"""Tests of compiled CUDA kernels on a machine without a GPU: execution of their PTX on the CPU, and their machine code.

`compiler` compiles kernels to PTX and to machine code without a driver. `program` parses PTX, `operations` defines the
arithmetic instructions, `memory` checks every memory access, and `machine` executes the blocks of a launch one after
the other. `host` replaces the device below the CUDA twin by this interpreter.
"""
