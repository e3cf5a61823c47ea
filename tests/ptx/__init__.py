"""Compiled CUDA kernels on a machine without a GPU: their PTX executed on the CPU, and their machine code looked at.

`program` reads PTX, `operations` says what its instructions do, `memory` watches every access, `machine` runs the
blocks of a launch one after the other, `host` puts all that in the place of a device below the CUDA twin, and
`compiler` makes PTX and machine code without a driver.
"""
