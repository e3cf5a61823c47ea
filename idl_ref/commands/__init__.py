"""The command line.

program    the parser, and what a run of a command ends with
train      the command `train`; data, its data sets; summary, what it says at its end
predict    the command `predict`; rows, the samples that it and `check` read
check      the command `check`
stopping   what Ctrl-C and SIGTERM do
"""
