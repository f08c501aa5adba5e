"""Command line, files, strict YAML, layout of the results, digests of code, subprocesses."""
