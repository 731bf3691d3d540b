"""Number of fuzzing cases: in CI the same cases for some seconds; with ``ECHOSTREAM_FUZZ=deep`` many random ones."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

DEEP = os.environ.get("ECHOSTREAM_FUZZ") == "deep"
DEEPER = 20  # factor of the number of cases


def cases(number: int, deep: int | None = None, **options) -> settings:
    """``number`` of them in CI; in a deep run many more, or ``deep``, and others each time.

    Examples that fail in a deep run are printed as ``@example`` lines, to be kept in the test.
    """
    return settings(
        max_examples=(deep or number * DEEPER) if DEEP else number,
        derandomize=not DEEP,
        deadline=None,  # busy machines are slow; the tests have timeouts of their own
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
        **options,
    )
