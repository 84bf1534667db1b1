"""Hypothesis strategies for the torch.optim.lr_scheduler classes that take an optimizer."""

from hypothesis import strategies as st

STEPS = 40
counts = st.integers(1, 15)
factors = st.floats(0.05, 1)
gammas = st.floats(0.3, 1.0)
eta_mins = st.sampled_from([0.0, 1e-3, 0.02])


def maker(name, *args, **kwargs):
    """Return a function that builds this scheduler from a module: torch's or the drop-in one."""
    return lambda module, optimizer: getattr(module, name)(optimizer, *args, **kwargs)


def drawn(name, *strategies, **named):
    return st.builds(lambda a, b: maker(name, *a, **b), st.tuples(*strategies),
                     st.fixed_dictionaries(named))  # fmt: skip


functions = st.sampled_from([lambda k: 0.95**k, lambda k: 1 / (1 + k), lambda k: 0.9])
SINGLE = {
    "LambdaLR": drawn("LambdaLR", functions),
    "MultiplicativeLR": drawn("MultiplicativeLR", functions),
    "StepLR": drawn("StepLR", counts, gammas),
    "MultiStepLR": drawn("MultiStepLR", st.lists(st.integers(1, 40), max_size=4), gammas),
    "ConstantLR": drawn("ConstantLR", factors, counts),
    "LinearLR": drawn("LinearLR", factors, factors, counts),
    "ExponentialLR": drawn("ExponentialLR", gammas),
    "PolynomialLR": drawn("PolynomialLR", counts, st.floats(0.5, 3)),
    "CosineAnnealingLR": drawn("CosineAnnealingLR", counts, eta_mins),
    "CosineAnnealingWarmRestarts": drawn(
        "CosineAnnealingWarmRestarts", counts, st.integers(1, 3), eta_mins
    ),
    "CyclicLR": drawn(
        "CyclicLR", st.floats(0.01, 0.1), st.floats(0.2, 1), counts, st.none() | counts,
        st.sampled_from(["triangular", "triangular2", "exp_range"]), gammas,
        cycle_momentum=st.booleans(),
    ),
    "OneCycleLR": drawn(
        "OneCycleLR", st.floats(0.1, 1), st.just(STEPS + 10), pct_start=st.floats(0.1, 0.45),
        three_phase=st.booleans(), cycle_momentum=st.booleans(),
    ),
}  # fmt: skip
