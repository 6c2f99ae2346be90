"""What single samples contribute to the gradient of a layer's parameters, from what goes in and what comes back.

A layer's gradient of one sample is a sum over its positions of outer products of inputs and of gradients with respect to
outputs. Products with a direction, and norms, can be had from the factors; the gradient itself is made only where that is
cheaper. One file a family of functions, all of them a :class:`~lightning_inf.model.layers.use.Use`.
"""
