"""What the module DMRIUpsample is made of, beside its module file: parameters, plan, runs, glyphs, panel, results."""
