"""Local HTTP servers that speak other people's protocols, so that tests use real sockets and no mocks."""
