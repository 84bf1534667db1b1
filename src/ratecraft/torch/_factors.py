"""The factors of an lr as pure numbers: what each scheduler multiplies by, and their product."""

Factors = float | list[float]


class FactorSource:
    """The factor of one scheduler: one for all groups, or one for each.

    Attributes:
        sets_lr: whether it gives learning rates, not factors; base counts as 1.
        for_all_groups: whether one schedule is for all groups, including groups added later.
        uniform: whether the factor is the same for all groups.
        factors: the current factor or factors.
    """

    def __init__(self, *, sets_lr: bool = False, for_all_groups: bool = True) -> None:
        self.sets_lr, self.for_all_groups = sets_lr, for_all_groups
        self.uniform = False
        self.factors: Factors = 1.0

    def factors_with_new_group(self, base: float) -> Factors:
        """Return the factors after a group with the given base value was added."""
        return [*self.factors, 1.0] if isinstance(self.factors, list) else self.factors

    def base_of_new_group(self, value: float, first_base: float) -> float:
        """Return the base value of a group that joins with this value."""
        return value

    def reorder(self, order: list[int]) -> None:
        """Follow a new order of the param groups: group i was group ``order[i]``."""
        if isinstance(self.factors, list):
            self.factors = [self.factors[j] for j in order]

    def describe(self, group: str) -> str:
        """Return the schedule of a named group in the schedule notation; empty if it has none."""
        return ""


def product_of_factors(factors: list[Factors]) -> Factors:
    """Return the product of factors: a number if it is the same for all groups."""
    product: Factors = factors[0] if factors else 1.0
    for factor in factors[1:]:
        if isinstance(product, list):
            right = factor if isinstance(factor, list) else [factor] * len(product)
            product = [a * b for a, b in zip(product, right, strict=True)]
        elif isinstance(factor, list):
            product = [product * b for b in factor]
        else:
            product *= factor
    return product


def scaled(scale: list[float], product: Factors) -> list[float]:
    """Return each group's scale times its factor."""
    if isinstance(product, list):
        return [a * b for a, b in zip(scale, product, strict=True)]
    return [a * product for a in scale]
