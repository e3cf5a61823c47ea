"""What the grader checks: for each lesson three functions, which have the names of its exercises."""

from checks import (
    adjoint,
    certificates,
    composition,
    deployment,
    equilibrium,
    gradient_checks,
    robustness,
    solvers,
    training,
    wellposed,
)

LESSONS = {
    "equilibrium": (equilibrium.equilibria, equilibrium.by_active_sets, equilibrium.as_implicit),
    "wellposed": (wellposed.perron_bounds, wellposed.rescaling, wellposed.project),
    "solvers": (solvers.picard_steps, solvers.picard, solvers.newton),
    "certificates": (certificates.error_bound, certificates.entrywise, certificates.proved_class),
    "adjoint": (adjoint.adjoint, adjoint.gradients, adjoint.low_rank),
    "gradient_checks": (gradient_checks.central, gradient_checks.complex_step, gradient_checks.wrong_gradients),
    "training": (training.cross_entropy, training.pullback, training.descend),
    "robustness": (robustness.sensitivity, robustness.radius, robustness.attack),
    "composition": (composition.cascade, composition.feedback, composition.in_units),
    "deployment": (deployment.steps_for_range, deployment.quantise, deployment.predict),
}
