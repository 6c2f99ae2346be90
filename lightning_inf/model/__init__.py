"""The user's module as a pure function: parameters and a batch go in, each sample's loss comes out.

``losses`` takes one call of a loss function apart, ``observe`` watches or replaces such calls while the user's own
``training_step`` runs, ``isolate`` makes the copy it runs on, ``sample_model`` is the function, and ``resolve`` finds
the mode that is right for a module, or says what to write.
"""
