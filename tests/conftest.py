"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# A busy machine is no failure: how long a draw or an example takes says nothing about the code.
settings.register_profile("uffdlab", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("uffdlab")
