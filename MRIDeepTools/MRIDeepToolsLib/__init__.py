"""What every module of the extension shares: nodes to files and back, jobs, set-up, settings.

Nothing is imported here, so that a module file which needs one piece starts quickly. Files of this folder import
`slicer`, `qt`, `ctk`, `vtk` and the standard library at file scope, and everything else where it is used. Torch and the
core run in a process of their own (:mod:`.jobs`).
"""
