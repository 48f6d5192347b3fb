"""The part that runs inside the sandbox, as one script on Python 3.9 or newer with nothing but pytest or unittest.

Its modules are joined into one namespace (see `bundle.py`): no name may be defined twice among them.
"""
