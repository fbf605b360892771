"""What the module SynthSegment is made of, beside its module file: parameters, checks, runs, panel of results."""
