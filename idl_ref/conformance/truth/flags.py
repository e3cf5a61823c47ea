"""The bugs that cases are meant to find: the names in `Case.flags`, and what each stands for."""

PAPER = "https://arxiv.org/abs/1908.06315"
TORCHIDL = "https://pypi.org/project/torchidl/"
HIGHAM = "https://doi.org/10.1137/1.9780898718027"
IEEE = "https://doi.org/10.1109/IEEESTD.2019.8766229"


# For each flag: the bug, its effect on a user, and a link.
FLAGS: dict[str, tuple[str, str, str]] = {
    "contraction": ("a wrong equation or adjoint", "answers are wrong at every κ", PAPER),
    "transpose": ("Aᵀ and A confused", "gradients are wrong unless A is symmetric", PAPER),
    "slow": (
        "an iteration or an adjoint that is cut short",
        "answers are wrong where A contracts slowly, as it does after training",
        PAPER,
    ),
    "activation": ("a wrong φ, or a φ′ that is not its derivative", "training stalls for one activation", PAPER),
    "overflow": ("exp of a large number", "inputs of a few hundred give inf or NaN", IEEE),
    "stopping": ("a stopping rule other than the declared one", "errors are larger than tol promises", HIGHAM),
    "stale": (
        "the iterate before the last returned, or φ′ taken at it",
        "errors are 1/κ times larger than necessary",
        TORCHIDL,
    ),
    "column": (
        "one tolerance or status for a whole batch",
        "the answer for a sample depends on the rest of its batch",
        TORCHIDL,
    ),
    "small": ("an absolute tolerance", "small inputs and cotangents give zeros", TORCHIDL),
    "ball": (
        "‖A‖∞ < 1 taken for a necessary condition of well-posedness",
        "well-posed models are refused or distorted",
        PAPER,
    ),
    "perron": ("‖A‖∞ used where only the Perron root of |A| is below 1", "well-posed models are refused", PAPER),
    "blocks": (
        "blocks of units solved without what other blocks give them",
        "models made of parts, and unrolled recurrent ones, are wrong",
        PAPER,
    ),
    "sparse": (
        "a sparse product that is wrong for rows or columns of no, one, or very many entries",
        "models with a sparse A are wrong, and dense ones right",
        PAPER,
    ),
    "reported": ("a failure that is not reported", "numbers that do not solve the equation are used", TORCHIDL),
    "cap": (
        "max_iter ignored, or not reported when it is reached",
        "the time is unbounded, or the failure unnoticed",
        TORCHIDL,
    ),
    "kink": (
        "a value of φ′ at a kink that was not declared",
        "gradients differ between backends at exact zeros",
        PAPER,
    ),
    "ulp": (
        "a comparison that is wrong exactly at, or next to, a boundary",
        "the wrong side of a kink or of the ball is taken",
        IEEE,
    ),
    "shape": ("an assumption about sizes", "sizes 0 and 1 cause crashes, or sums along the wrong axis", PAPER),
    "bias": (
        "the bias added twice, or left without a gradient",
        "biases are doubled, or never change in training",
        TORCHIDL,
    ),
    "no_D": (
        "the assumption that every model has D",
        "a model without D crashes, or gets a term that it lacks",
        TORCHIDL,
    ),
    "low_rank": ("L and R exchanged, in the equation or in the adjoint", "answers are wrong wherever L ≠ R", PAPER),
    "scale": ("clipping, flushing to zero, absolute thresholds", "very large or small inputs are lost", IEEE),
    "rows": (
        "rounding measured by a norm of the column",
        "one large entry stops all others: success is reported for answers without a correct digit",
        HIGHAM,
    ),
    "saturated": (
        "the rounding of a preactivation taken for that of φ",
        "rows with a huge z count as unknown, although φ is constant there",
        HIGHAM,
    ),
    "cycle": (
        "a stopping rule without an end in the last digits",
        "right answers in float32 are reported as failures",
        HIGHAM,
    ),
    "judged": (
        "one iterate judged and another one returned",
        "outside the ball the answer has a residual that was never checked",
        PAPER,
    ),
    "subnormal": ("numbers below the smallest normal number set to zero", "the smallest inputs are lost", IEEE),
    "accumulation": ("sums in float32 in a float64 backend", "half of the digits are lost", HIGHAM),
    "memory": (
        "strides ignored, or inputs overwritten",
        "views give wrong numbers, or the arrays of the caller change",
        HIGHAM,
    ),
    "confined": (
        "NaN replaced by a number, or spread",
        "a bad sample goes unnoticed, or its whole batch is lost",
        IEEE,
    ),
    "f": (
        "a wrong map f from raw to effective weights, or a wrong pullback of f",
        "training follows a wrong gradient",
        PAPER,
    ),
    "straight_through": (
        "f differentiated where it is declared to count as the identity",
        "gradients differ from those of torchidl",
        TORCHIDL,
    ),
    "unit": (
        "a step measured by a mean over the units",
        "success is reported while a few slow units are far from their values",
        HIGHAM,
    ),
    "cotangent": (
        "one tolerance or one mean for the adjoints of a whole batch",
        "the gradient of a sample depends on the rest of its batch",
        TORCHIDL,
    ),
    "count": (
        "iterations that are not counted, or off by one",
        "the cost of an answer is misstated",
        TORCHIDL,
    ),
    "limit": (
        "a limit of the number of iterations that is off by one",
        "an answer that max_iter just allows is refused, or more time is taken than allowed",
        TORCHIDL,
    ),
    "start": ("X0 read in another order than its own, or ignored", "warm starts are lost, or start elsewhere", PAPER),
    "digits": (
        "weights or cotangents kept in a shorter format, clipped, or set to zero where they are small",
        "half of the digits are lost, or features of small weights",
        HIGHAM,
    ),
    "storage": (
        "sums in a dtype of 8 or 11 significant bits, or answers that are not rounded to it correctly",
        "digits are lost beyond those that the storage costs",
        HIGHAM,
    ),
    "units": (
        "a tile or a vector of units that is not filled, or of which there are several",
        "models with more than 16, 32 or 256 units, or with a number that no vector divides, are wrong",
        HIGHAM,
    ),
    "batch": (
        "a chunk of samples that is not filled",
        "the last samples of a large batch are wrong or missing",
        HIGHAM,
    ),
    "features": (
        "more features or outputs than a vector holds",
        "the weights beyond the first 16 or 32 do not count",
        HIGHAM,
    ),
    "square": (
        "a transposed array whose shape is the same",
        "answers are wrong where n = p = q = m, and only there",
        PAPER,
    ),
    "ranks": ("a rank larger than a vector", "factors beyond the first few do not count", PAPER),
}
