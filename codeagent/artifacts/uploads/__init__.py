"""Archives from outside, read as untrusted bytes: nothing is written by a name they contain."""
