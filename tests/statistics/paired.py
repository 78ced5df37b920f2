"""The constants in the tests of src/outcome/paired.rs.

Run with scipy and statsmodels installed: python paired.py
The interval is found here without the closed form that mohs uses: the likelihood is maximised numerically under the tested
difference, and the score equation solved by bracketing.
"""

from math import sqrt

from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binomtest, norm
from scipy.special import xlogy
from statsmodels.stats.contingency_tables import mcnemar

# Samples, right in the first alone, right in the second alone.
CASES = [
    (450, 12, 67),
    (450, 3, 1),
    (50, 0, 5),
    (30, 0, 0),
    (1000, 40, 22),
    (20, 10, 10),
    (44, 43, 0),
    (10000, 251, 190),
]
Z = norm.ppf(0.975)


def likeliest(n, b, c, delta):
    """The probability of `c` that maximises the likelihood where that of `b` is `delta` larger."""
    low, high = max(0.0, -delta), (1 - delta) / 2

    def cost(q):
        p = q + delta
        return -(xlogy(b, max(p, 1e-300)) + xlogy(c, max(q, 1e-300)) + xlogy(n - b - c, max(1 - p - q, 1e-300)))

    best = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-15})
    return min([best.x, low, high], key=cost)


def score(n, b, c, delta):
    q = likeliest(n, b, c, delta)
    variance = n * (2 * q + delta * (1 - delta))
    difference = b - c - n * delta
    return difference / sqrt(variance) if variance > 0 else 0.0


def tango(n, b, c):
    estimate = (b - c) / n
    edge = 1e-9
    low = brentq(lambda d: score(n, b, c, d) - Z, -1 + edge, estimate - edge, xtol=1e-13)
    high = brentq(lambda d: score(n, b, c, d) + Z, estimate + edge, 1 - edge, xtol=1e-13)
    return low, high


for n, b, c in CASES:
    p = binomtest(min(b, c), b + c, 0.5).pvalue if b + c else 1.0
    q = mcnemar([[n - b - c, b], [c, 0]], exact=True).pvalue if b + c else 1.0
    assert abs(p - min(q, 1.0)) < 1e-12 * max(p, 1e-300) + 1e-15, (p, q)
    low, high = tango(n, b, c)
    print(f"({n}, {b}, {c}, {p!r}, {low:.7f}, {high:.7f}),")
