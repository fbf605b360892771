"""What the module Harmonize is made of, beside its module file: parameters, checks, runs, views, results."""
