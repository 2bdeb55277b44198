"""Everything that knows pytest and pytest-benchmark; loaded when a suite is named."""
