"""The one privileged process of a worker's machine, and the driver that asks it.

`server` and `session` run as root and know no secret; `client` is the `SandboxDriver` of the unprivileged worker.
`wire` is what they say to each other, and `requests` what the first believes of the second.
"""
