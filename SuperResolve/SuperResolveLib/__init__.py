"""What the module SuperResolve is made of, beside its module file: parameters, checks, runs, views, results."""
