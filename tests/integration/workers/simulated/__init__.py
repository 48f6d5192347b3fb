"""The workers, the publisher and the sweeps in one process on a real PostgreSQL, under a schedule that a test decides.

Every database call, every sending and every piece of work waits at a gate until the schedule lets it through, fails it,
or ends the process that waits there. Time stands still unless the schedule moves it.
"""
