# Slicer packages the extension here; the stand-in leaves it at the install rules.
