"""This package has the parts of a training, which `idl_ref.fit` puts together.

samples       what is trained on: checked inputs, targets and weights
evaluation    loss and accuracy over a data set
history       what is recorded
progress      what is shown
interrupts    Ctrl-C and SIGTERM, which wait for the end of a step
checkpoint    the file from which a training resumes
rates         the search for a learning rate
loop          epochs and steps
"""
