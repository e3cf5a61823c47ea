"""This package has the parts of a training, which `idl_ref.fit` puts together.

samples       what is trained on: checked inputs, targets and weights
evaluation    loss and accuracy over a data set
history       what is recorded
progress      what is shown
interrupts    Ctrl-C and SIGTERM, which wait for the end of a step
checkpoint    the file from which a training resumes
rates         the search for a learning rate
tree          the order in which the parts of a batch are added up
ranks         the processes of MPI that train one model together
leaves        steps whose batch is cut into parts, and shared between processes
loop          epochs and steps
"""
