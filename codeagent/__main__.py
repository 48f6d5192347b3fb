"""`python -m codeagent` is the `codeagent` command."""

from codeagent.cli.main import app

if __name__ == "__main__":
    app()
