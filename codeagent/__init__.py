"""CodeAgent: a self-hosted platform that runs coding agents as an event-driven system."""

__version__ = "0.1.0"
