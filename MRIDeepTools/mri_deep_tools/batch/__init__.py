"""Many subjects: a table or a BIDS data set, on this machine or on a cluster, with one loading of the networks.

``jobs.py`` says what one subject's work is and what came of it, ``worker.py`` does it, ``state.py`` remembers it,
``table.py`` and ``bids.py`` find the subjects, ``run.py`` runs them all, ``overview.py`` shows them.
"""
